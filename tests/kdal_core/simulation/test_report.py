import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread
from scipy import stats

from kdal_core.simulation.curves import summarise
from kdal_core.simulation.report import pages as report
from kdal_core.simulation.report import plots
from kdal_core.simulation.report.headline import headline
from kdal_core.simulation.report.hypotheses import hypotheses
from kdal_core.simulation.report.pages import cards, markdown, write_report
from kdal_core.simulation.results import Point, Results, Run

SPEEDS = {
    "kd_gap": 68,
    "kd_gap four_case": 74,
    "badge": 78,
    "margin": 82,
    "ensemble": 84,
    "acd": 95,
    "bald": 98,
    "typiclust": 100,
    "least_confidence": 104,
    "probcover": 108,
    "entropy": 116,
    "random": 122,
    "learning_loss": 125,
    "coreset": 134,
}
"""Labels in which each synthetic arm loses all but 1/e of its error."""
BUDGETS = range(50, 401, 50)


def synthetic(speeds=SPEEDS, seeds=5, budgets=BUDGETS):
    """Exponential learning curves with noise of the seed (shared by the arms) and of each point."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.006, seeds)
    runs = []
    for arm, speed in speeds.items():
        for seed in range(seeds):
            noise = rng.normal(0, 0.01, len(budgets))
            scores = np.clip(0.97 - 0.55 * np.exp(-np.array(budgets) / speed) + shared[seed] + noise, 0, 1)
            points = [
                Point(n, labels, float(score), labels // 20, 3.5 * labels, 30.0, 0.8)
                for n, (labels, score) in enumerate(zip(budgets, scores, strict=True))
            ]
            runs.append(Run(arm, seed, tuple(points)))
    return Results(
        "digits_noisy",
        "Handwritten digits.",
        "accuracy",
        "random",
        {seed: float(0.97 + shared[seed]) for seed in range(seeds)},
        10000,
        tuple(runs),
        {
            "date": "2026-11-22",
            "machine": "2 CPU cores",
            "command": "kdal simulate digits_noisy",
            "versions": "kdal 0.1.0",
        },
        {"name": "digits_noisy", "budget": 50},
    )


def exact(own, random, *, arm="kd_gap"):
    """Straight curves, one a seed: each runs from 0 at 0 labels up to 0.95 at the given number of labels (hundreds)."""
    runs = []
    for name, needed in ((arm, own), ("random", random)):
        for seed, labels in enumerate(needed):
            points = [
                Point(n, x, 0.95 * min(x / labels, 1), 0, 36.0 * x, 1.0) for n, x in enumerate(range(100, 501, 100))
            ]
            runs.append(Run(name, seed, tuple(points)))
    return Results("c", "", "accuracy", "random", dict.fromkeys(range(len(own)), 1.0), 10000, tuple(runs), {}, {})


def said(results):
    return headline(results, summarise(results))


class Page(HTMLParser):
    """The texts of a page's table rows, and all its tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_data(self, data):
        self.words.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert write_report(synthetic(), folder) == folder / "index.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "index.html").read_text())


def test_a_report_is_six_files(folder):
    assert {path.name for path in folder.iterdir()} == {
        *("results.json", "summary.json", "table.md", "curves.png", "curves.svg", "index.html")
    }
    assert Results.from_json((folder / "results.json").read_text()) == synthetic()


def test_the_page_gives_area_and_paired_difference_as_scipy_computes_them(page):
    runs = {(run.arm, run.seed): [point.score for point in run.points] for run in synthetic().runs}
    areas = {arm: 100 * np.array([np.trapezoid(runs[arm, seed], BUDGETS) / 350 for seed in range(5)]) for arm in SPEEDS}
    row = next(row for row in page.rows if row[0] == "badge")
    for cell, values, sign in ((row[1], areas["badge"], ""), (row[2], areas["badge"] - areas["random"], "+")):
        low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
        assert cell == f"{values.mean():{sign}.1f} ± {(high - low) / 2:.1f}"
    assert row[3] == "better"


def test_the_page_lists_arms_by_area_with_the_baseline_among_them(page):
    rows = [row for row in page.rows if len(row) == 11][1:]
    areas = [float(row[1].split()[0]) for row in rows]
    assert areas == sorted(areas, reverse=True)
    assert len(rows) == 14
    assert {row[0]: row[3] for row in rows}["random"] == "compared with"


def test_the_page_asks_for_nothing_from_outside_and_runs_nothing(folder, page):
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in page.tags}
    addresses = [
        value for _, attributes in page.tags for name, value in attributes.items() if name.endswith(("href", "src"))
    ]
    assert all(address.startswith("#") for address in addresses)
    assert "url(http" not in (folder / "index.html").read_text()


def test_the_page_can_be_heard(page):
    assert ("html", {"lang": "en"}) in page.tags
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in page.tags if tag == "th")
    picture = next(attributes for _, attributes in page.tags if attributes.get("role") == "img")
    assert said(synthetic()) in picture["aria-label"]


def test_the_page_names_protocol_date_machine_command_and_versions(page):
    words = " ".join(page.words)
    for fact in ("2026-11-22", "2 CPU cores", "kdal simulate digits_noisy", "kdal 0.1.0", "50 to 400", "0, 1, 2, 3, 4"):
        assert fact in words


def test_summary_json_holds_the_statistics_and_the_headline(folder):
    content = json.loads((folder / "summary.json").read_text())
    summary = summarise(synthetic())
    assert content["headline"] == said(synthetic())
    assert [arm["arm"] for arm in content["arms"]] == [arm.arm for arm in summary.arms]
    assert content["arms"][0]["area"]["mean"] == summary.arms[0].area.mean
    assert content["arms"][0]["reaches"]["0.95"]["median"] == summary.arms[0].reaches[0.95].median


def test_the_markdown_tables_have_a_row_for_each_arm_and_the_same_number_of_cells_in_each(folder):
    lines = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 2 * (14 + 2)
    assert {line.count("|") for line in lines[:16]} == {len(BUDGETS) + 2}
    assert len({line.count("|") for line in lines[16:]}) == 1


def test_a_bar_in_a_name_does_not_break_the_markdown_table():
    results = exact([200, 200], [400, 400], arm="kd_gap|x")
    assert "| kd_gap\\|x |" in markdown(results, summarise(results))


def test_the_picture_is_not_empty_and_always_the_same(folder):
    assert imread(folder / "curves.png").std() > 0.05
    results = synthetic()
    again = plots.svg(plots.draw(results, summarise(results)))
    assert again == plots.svg(plots.draw(results, summarise(results)))
    assert plots.INK not in again  # text and axes follow the page's colour, in dark mode too


def test_sixteen_arms_all_look_different_and_only_kdals_and_the_baseline_are_strong():
    names = [*SPEEDS, "kd_gap random start", "random after cold start"]
    looks = plots.looks(names, "random")
    assert len(set(looks.values())) == 16
    assert {name for name, look in looks.items() if look.strong} == {
        *("kd_gap", "kd_gap four_case", "kd_gap random start", "random")
    }


def test_names_and_descriptions_are_text_never_markup_nor_formulas(tmp_path):
    evil = "<script>alert('$x_$')</script>"
    results = exact([200, 220], [400, 420], arm=f"kd_gap {evil}")
    results = replace(
        results,
        campaign=evil,
        description=evil,
        metric=f"acc {evil}",
        environment={evil: evil},
        settings={evil: [evil]},
    )
    text = write_report(results, tmp_path).read_text()
    assert "<script" not in text.lower()
    assert "&lt;script&gt;alert" in text
    assert "alert('$x_$')" in text[text.index("<svg") : text.index("</svg>")]


def test_the_headline_tells_what_kdal_saves():
    results = exact([200, 200, 200], [400, 500, 400])
    # savings 50%, 60%, 50%: mean 53.3%, half-width 4.303 * 5.774 / sqrt(3) = 14.3
    assert said(results) == (
        "With kdal's order, 200 labels reached 95% of what all 10,000 labels give; "
        "a random order needed 400: 53% fewer (between 39% and 68%, 3 seeds)."
    )


def test_the_headline_says_that_random_was_better_when_it_was():
    # 100%, 150%, 100%: mean 116.7%, half-width 4.303 * 28.87 / sqrt(3) = 71.7
    assert said(exact([400, 500, 400], [200, 200, 200])) == (
        "A random order was better. With a random order, 200 labels reached 95% of what all 10,000 labels give; "
        "kdal's order needed 400: 117% more (between 45% and 188%, 3 seeds)."
    )


def test_the_headline_does_not_sell_chance():
    text = said(exact([200, 400, 300], [300, 300, 310]))
    assert text.endswith("fewer, 3 seeds: the seeds do not tell the two apart).")
    assert "between" in text
    assert "more and" in text


def test_the_headline_of_one_seed_says_that_no_interval_can_be_given():
    assert said(exact([200], [400])) == (
        "With kdal's order, 200 labels reached 95% of what all 10,000 labels give; "
        "a random order needed 400: 50% fewer (one seed: no interval can be given)."
    )


def test_a_baseline_that_does_not_get_there_gives_a_bound_on_the_saving():
    results = exact([200, 200, 200], [900, 900, 400])
    assert said(results) == (
        "With kdal's order, 200 labels reached 95% of what all 10,000 labels give; a random order did not get there "
        "with the campaign's 500 labels, so kdal's took at least 60% fewer "
        "(it was reached by kdal's order in 3, by a random order in 1 of 3 seeds)."
        " Over the whole curve, the seeds do not tell the two apart."
    )
    assert cards(results, summarise(results))[0].value == "≥ 60%"


def test_kdal_alone_not_getting_there_is_a_loss():
    text = said(exact([900, 900, 900], [200, 220, 200]))
    assert text.startswith("A random order was better. With a random order, 200 labels reached 95%")
    assert "kdal's order did not get there with the campaign's 500 labels (it was" in text
    assert "by kdal's order in none of 3 seeds" in text


def test_when_neither_gets_there_the_scores_at_the_end_are_compared():
    # at 500 labels: 0.95 * 5/8 - 0.95 * 5/10 = 0.11875 in each seed
    text = said(exact([800, 800], [1000, 1000]))
    assert text == (
        "The campaign's 500 labels were too few to reach 95% of what all 10,000 labels give. With 500 labels, kdal's "
        "order is 11.9 points of accuracy ahead of a random order (95% interval +11.9 to +11.9, 2 seeds)."
    )
    assert "A random order was better: with 500 labels" in said(exact([1000, 1000], [800, 800]))


def test_levels_reached_with_the_first_labels_are_bounds():
    results = exact([50, 50, 50], [200, 200, 200])
    assert said(results) == (
        "With kdal's order, at most 100 labels reached 95% of what all 10,000 labels give; a random order needed 200: "
        "50% fewer (between 50% and 50%, 3 seeds). In 3 seeds the first 100 labels were enough for one of them, "
        "so that what it really needed may be less."
    )
    assert "| ≤ 100 |" in markdown(results, summarise(results))


def test_seeds_in_which_only_one_got_there_are_told():
    text = said(exact([200, 200, 200], [400, 450, 900]))
    assert "2 of 3 seeds, where both got there" in text
    assert "> 500" not in text


def test_the_cards_are_the_comparisons_numbers():
    results = exact([200, 200], [400, 400])
    labels, hours, score = cards(results, summarise(results))
    assert (labels.value, labels.what) == ("50%", "fewer labels to reach 95%")
    assert (hours.value, hours.what) == ("2.0 h", "less annotator time to reach 95%")  # 200 labels of 36 s
    assert score.value == "+0.0"
    lost = exact([400, 400], [200, 200])
    assert cards(lost, summarise(lost))[0].what == "more labels to reach 95%"


def test_wrong_labels_are_told_of_only_where_there_were_any():
    clean = exact([200, 200], [400, 400])
    assert "wrong" not in markdown(clean, summarise(clean))
    assert "rong label" not in report.page(clean, summarise(clean), "<svg></svg>")
    runs = [replace(run, points=tuple(replace(p, wrong=p.labels // 4) for p in run.points)) for run in clean.runs]
    noisy = replace(clean, runs=tuple(runs))
    assert [card.value for card in cards(noisy, summarise(noisy)) if "wrong" in card.what] == ["25.0%"]
    assert "| wrong labels, % |" in markdown(noisy, summarise(noisy))
    assert "Wrong labels, %" in report.page(noisy, summarise(noisy), "<svg></svg>")


def test_a_campaign_under_way_has_a_report_that_says_so(tmp_path):
    whole = synthetic()
    runs = [
        run if run.seed < 3 else replace(run, points=run.points[:3])
        for run in whole.runs
        if run.arm != "bald" or run.seed
    ]
    text = write_report(replace(whole, runs=tuple(runs), full={0: 0.97}), tmp_path).read_text()
    assert "28 of 69 runs have not come to round 7 yet" in text
    assert "bald: 4 of 5 seeds so far" in text
    assert "not known for seed 1, 2, 3, 4" in text


@pytest.mark.parametrize("names", [["kd_gap"], ["random"], ["entropy"], ["random", "entropy"], []])
def test_missing_arms_leave_a_report(tmp_path, names):
    whole = synthetic(seeds=2)
    results = replace(whole, runs=tuple(run for run in whole.runs if run.arm in names))
    text = write_report(results, tmp_path).read_text()
    assert "fewer" not in said(results)
    assert ("Nothing has been measured yet." in text) == (not names)


def test_a_campaign_of_a_single_round_has_a_report(tmp_path):
    assert "at the end" in write_report(synthetic(budgets=[50], seeds=2), tmp_path).read_text()


def test_arms_without_a_common_seed_are_not_compared(tmp_path):
    whole = synthetic({"kd_gap": 60, "random": 90}, seeds=2)
    results = replace(whole, runs=tuple(run for run in whole.runs if (run.arm == "random") == (run.seed == 0)))
    write_report(results, tmp_path)
    assert said(results) == (
        "Not enough has been measured to tell the labels needed. kd_gap and random have no seed in common yet."
    )


def test_the_picture_shows_all_of_kdal_and_the_baseline_and_cuts_curves_far_below():
    results = exact([100, 110], [480, 500])
    far = [Run("probcover", run.seed, tuple(replace(p, score=0.01) for p in run.points)) for run in results.runs[:2]]
    crowd = [Run(f"other {n}", 0, results.runs[0].points) for n in range(6)]
    results = replace(results, runs=(*results.runs, *far, *crowd))
    left = plots.draw(results, summarise(results)).axes[0]
    bottom, top = left.get_ylim()
    scores = {run.arm: [100 * point.score for point in run.points] for run in results.runs}
    assert bottom < min(scores["random"]) < max(scores["kd_gap"]) < top
    assert bottom > max(scores["probcover"])


def test_the_right_side_shows_every_point_of_kdals_curves_however_far_they_lie():
    """Rivals crowd about the baseline; kdal is far ahead at first, and one of its arms far behind."""
    budgets = [100, 200, 300, 400]
    random = [0.50, 0.60, 0.70, 0.80]
    curves = {"random": random, "kd_gap": [0.90, 0.905, 0.91, 0.92], "kd_gap (paper)": [0.05, 0.10, 0.6, 0.7]}
    curves |= {f"rival {n}": [score + 0.001 * n for score in random] for n in range(12)}
    runs = [
        Run(
            arm, seed, tuple(Point(n, x, y, 0, 36.0 * x, 1.0) for n, (x, y) in enumerate(zip(budgets, ys, strict=True)))
        )
        for arm, ys in curves.items()
        for seed in range(2)
    ]
    results = Results("c", "", "accuracy", "random", {0: 1.0, 1: 1.0}, 1000, tuple(runs), {}, {})
    left, right = plots.draw(results, summarise(results)).axes
    for axes, below in ((left, [0, 0, 0, 0]), (right, random)):
        bottom, top = axes.get_ylim()
        for arm in ("kd_gap", "kd_gap (paper)"):
            heights = [100 * (y - b) for y, b in zip(curves[arm], below, strict=True)]
            assert bottom < min(heights)
            assert max(heights) < top


def test_a_campaign_without_the_run_of_all_labels_speaks_of_no_number_of_them(tmp_path):
    results = replace(synthetic(seeds=2), full={}, full_labels=0)
    report.write_report(results, tmp_path)
    for path in tmp_path.iterdir():
        if path.suffix in {".html", ".md", ".json", ".svg"}:
            text = path.read_text()
            assert "all 0 labels" not in text, path.name
            assert "0 images" not in text, path.name
    assert "with all labels" in (tmp_path / "index.html").read_text()


def test_the_noise_score_is_the_last_one_measured():
    clean = exact([200, 200], [400, 400])
    runs = [
        replace(run, points=(*(replace(p, noise_auroc=0.5 + 0.1 * p.round) for p in run.points[:-1]), run.points[-1]))
        for run in clean.runs
    ]
    summary = summarise(replace(clean, runs=tuple(runs)))
    assert summary.arm("kd_gap").noise_auroc.mean == pytest.approx(0.8)


FEW = {"kd_gap": 68, "random": 122, "entropy": 116}


def scored(results, change):
    """The same results with other scores of the runs and of the models that have all labels."""
    runs = [replace(run, points=tuple(replace(p, score=change(p.score)) for p in run.points)) for run in results.runs]
    return replace(results, runs=tuple(runs), full={seed: change(score) for seed, score in results.full.items()})


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_with_one_round_kdal_and_the_baseline_show_their_intervals_too():
    results = synthetic(FEW, budgets=[50], seeds=3)
    axes = plots.draw(results, summarise(results)).axes[0]
    bars = [segment for bar in axes.containers for line in bar[2] for segment in line.get_segments()]
    assert len(bars) == 3
    assert all(segment[1][1] > segment[0][1] for segment in bars)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (lambda run: run.arm != "random", "random has no results yet"),
        (lambda run: run.arm == "random", "there is nothing to compare with random yet"),
        (lambda run: (run.arm == "random") == (run.seed == 0), "no order has a seed in common with random yet"),
    ],
)
def test_where_nothing_can_be_compared_the_picture_says_why(kept, words):
    whole = synthetic(FEW, seeds=2)
    results = replace(whole, runs=tuple(run for run in whole.runs if kept(run)))
    assert texts(plots.draw(results, summarise(results)).axes[1]) == [words]


def test_a_level_below_all_scores_does_not_squeeze_the_picture(tmp_path):
    """The words of a line that lies outside the axes were laid out as if there were room for them."""
    perfect = scored(synthetic(FEW, seeds=2), lambda score: 1.0)
    write_report(perfect, tmp_path)  # a warning of matplotlib's is an error in tests
    assert all(axes.get_position().width > 0.2 for axes in plots.draw(perfect, summarise(perfect)).axes)


def test_a_full_score_of_nothing_is_no_goal_to_reach():
    nothing = scored(synthetic(FEW, seeds=2), lambda score: 0.0)
    assert "reached" not in said(nothing)
    assert texts(plots.draw(nothing, summarise(nothing)).axes[0]) == []


def test_a_trait_that_only_some_seeds_images_have_is_told_over_these(tmp_path):
    whole = synthetic(FEW, seeds=3)
    runs = []
    for run in whole.runs:
        worn = {"worn": 0.4} if run.seed == 0 else {}
        tables = {"picked": {"lanes": 2.0, **worn}, "offered": {"lanes": 3.0, **worn}}
        runs.append(replace(run, points=tuple(replace(point, **tables) for point in run.points)))
    results = replace(whole, runs=tuple(runs))
    write_report(results, tmp_path)
    picks = hypotheses(results, summarise(results)).picks["kd_gap"]
    assert (picks["lanes"].picked.seeds, picks["worn"].picked.seeds) == (3, 1)


def test_words_count_one_round_one_arm_and_one_seed_as_one(tmp_path):
    one = write_report(synthetic(FEW, budgets=[50], seeds=1), tmp_path).read_text()
    assert "scored once" in one
    assert "With one seed there are no intervals." in one
    assert "Bands and bars are 95% intervals" not in one
    whole = synthetic(FEW, seeds=2)
    alone = replace(whole, runs=tuple(run for run in whole.runs if run.arm == "random"))
    assert "of the others" not in said(alone)
    assert "random alone has a mean accuracy of" in said(alone)


def test_scores_of_a_campaign_under_way_are_not_those_at_the_end():
    whole = synthetic(FEW, seeds=2)
    runs = [replace(run, points=run.points[:3]) if run.arm == "random" else run for run in whole.runs]
    results = replace(whole, runs=tuple(runs))
    assert cards(results, summarise(results))[-1].what == "points of accuracy so far"
