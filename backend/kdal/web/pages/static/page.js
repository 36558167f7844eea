// What htmx cannot do by itself: say that the server does not answer, and open pictures in a dialog.
"use strict";

const lost = (is) => { document.getElementById("lost").hidden = !is; };
document.addEventListener("htmx:sendError", () => lost(true));
document.addEventListener("htmx:timeout", () => lost(true));
document.addEventListener("htmx:responseError", () => lost(true));
document.addEventListener("htmx:afterOnLoad", () => lost(false));

document.addEventListener("htmx:afterSwap", (event) => {
  const dialog = document.getElementById("pictures");
  if (dialog && event.detail.target.id === "pictures-inside" && !dialog.open) dialog.showModal();
});
document.addEventListener("click", (event) => {
  const dialog = document.getElementById("pictures");
  if (dialog && (event.target === dialog || event.target.closest("[data-close]"))) dialog.close();
});
