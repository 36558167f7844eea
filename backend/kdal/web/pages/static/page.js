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

// Few pictures are made at a time, and a server that is busy with others says so at once: they are asked for again.
const tries = new WeakMap();
document.addEventListener("error", (event) => {
  const image = event.target;
  if (!(image instanceof HTMLImageElement)) return;
  const count = (tries.get(image) || 0) + 1;
  tries.set(image, count);
  if (count > 12) return;
  setTimeout(() => { image.src = image.src.replace(/[?&]try=\d+/, "") + (image.src.replace(/[?&]try=\d+/, "").includes("?") ? "&" : "?") + "try=" + count; }, 150 * count + 250 * Math.random());
}, true);
