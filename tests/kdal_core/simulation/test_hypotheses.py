import json
from dataclasses import replace

import pytest
from markupsafe import escape
from scipy import stats

from kdal_core.simulation.curves import summarise
from kdal_core.simulation.report.hypotheses import correlation_rows, hypotheses, pick_rows
from kdal_core.simulation.report.pages import markdown, summary_json, write_report
from kdal_core.simulation.results import Point, Results, Run

LANES = {"entropy": -0.3, "kd_gap": 0.1, "random": 0.0}
"""How many lanes more the images have that each synthetic arm picks."""


def correlations(seed, number):
    return {
        "entropy": {"lanes": -0.2, "worn": 0.5 + 0.01 * seed, "error": 0.3, "wrong label": 0.4},
        "D_SS + D_ST": {"lanes": 0.1, "worn": 0.1, "error": 0.2 + 0.1 * number, "wrong label": 0.1},
    }


def synthetic(seeds=3, rounds=3, preferences=LANES):
    runs = []
    for arm, more in preferences.items():
        for seed in range(seeds):
            points = []
            for number in range(rounds):
                last = number + 1 == rounds
                wobble = 0.01 * seed + 0.02 * number
                points.append(
                    Point(
                        round=number,
                        labels=10 * (number + 1),
                        score=0.3 + 0.1 * number,
                        wrong=number,
                        annotator_seconds=30.0 * (number + 1),
                        compute_seconds=1.0,
                        noise_auroc=None if last or arm != "kd_gap" else 0.6 + 0.02 * seed,
                        picked={"lanes": 9.0 if number == 0 else 4 + more + wobble, "worn": 0.5 + more / 10},
                        offered={"lanes": 4.0 + 0.01 * number, "worn": 0.5},
                        correlations=correlations(seed, number) if arm == "kd_gap" and not last else {},
                    )
                )
            runs.append(Run(arm, seed, tuple(points)))
    return Results("lanes", "Roads.", "lane F1", "random", dict.fromkeys(range(seeds), 0.9), 100, tuple(runs), {}, {})


def found(results):
    return hypotheses(results, summarise(results))


def test_what_an_order_picks_is_compared_with_what_it_chose_from_by_round_and_seed():
    pick = found(synthetic()).picks["entropy"]["lanes"]
    differences = [-0.3 + 0.01 * seed + 0.01 * (1 + 2) / 2 for seed in range(3)]
    assert pick.difference.mean == pytest.approx(sum(differences) / 3)
    low, high = stats.t.interval(0.95, 2, loc=pick.difference.mean, scale=stats.sem(differences))
    assert (pick.difference.low, pick.difference.high) == pytest.approx((low, high))
    assert pick.offered.mean == pytest.approx(4.015)
    assert pick.picked.mean == pytest.approx(pick.offered.mean + pick.difference.mean)


def test_correlations_are_means_over_rounds_then_seeds():
    table = found(synthetic()).correlations
    assert table["entropy"]["worn"].mean == pytest.approx(0.51)
    assert table["D_SS + D_ST"]["error"].mean == pytest.approx(0.25)
    assert table["D_SS + D_ST"]["error"].half_width == pytest.approx(0)
    assert found(synthetic()).marks == ("lanes", "worn", "error", "wrong label")


def test_the_papers_claims_are_told_one_by_one_with_what_was_found():
    few, gap, noise, error = found(synthetic()).sentences
    assert "entropy prefers images with few lanes: so it does here" in few
    assert "picked show 3.74 lanes on average, those that it chose from 4.01: 0.27 fewer (95% interval −0.30" in few
    assert "the gap does not prefer them: nor does it here" in gap
    assert "0.12 more" in gap
    assert "62.0% (between 57.0% and 67.0%, 3 seeds) of all pairs; by chance it would be 50%" in noise
    assert "entropy +0.30, D_SS + D_ST +0.25" in error


def test_an_orders_name_is_told_as_it_is_written():
    few = found(synthetic(preferences={"entropy, S-KD": -0.3, "kd_gap": 0.1, "random": 0.0})).sentences[0]
    assert "entropy, S-KD picked" in few


def test_the_claims_are_told_as_they_fall_out():
    opposite = found(synthetic(preferences={"entropy": 0.5, "kd_gap": -0.5, "random": 0.0})).sentences
    assert "the opposite is true here" in opposite[0]
    assert "but here it does" in opposite[1]
    unseen = found(synthetic(preferences={"entropy": -0.025, "kd_gap": 0.0, "random": 0.0})).sentences
    assert "that is not seen here" in unseen[0]
    one = found(synthetic(seeds=1)).sentences
    assert "that is not seen here" in one[0]
    assert "one seed: no interval can be given" in one[0]


def test_a_campaign_whose_images_have_no_traits_makes_no_claims(tmp_path):
    plain = synthetic()
    runs = [
        Run(run.arm, run.seed, tuple(replace(p, picked={}, offered={}, correlations={}) for p in run.points))
        for run in plain.runs
    ]
    plain = replace(plain, runs=tuple(runs))
    assert found(plain).picks == {}
    assert "claims" not in json.loads(summary_json(plain, summarise(plain)))
    assert "What the orders look for" not in write_report(plain, tmp_path).read_text()
    assert "Traits" not in markdown(plain, summarise(plain))


def test_page_tables_and_json_tell_the_claims(tmp_path):
    page = write_report(synthetic(), tmp_path).read_text()
    for sentence in found(synthetic()).sentences:
        assert str(escape(sentence)) in page
        assert sentence in (tmp_path / "table.md").read_text()
    assert '<th scope="col">lanes, difference</th>' in page
    assert "Lane F1 at each number of labels" in page
    rows = pick_rows(found(synthetic()))
    assert {row[0] for row in rows} == set(LANES)
    assert all(len(row) == 5 for row in rows)
    assert correlation_rows(found(synthetic()))[0][:2] == ["entropy", "−0.20 ± 0.00"]
    told = json.loads((tmp_path / "summary.json").read_text())["claims"]
    assert told["picks"]["entropy"]["lanes"]["difference"]["mean"] == pytest.approx(-0.275)
    assert Results.from_json((tmp_path / "results.json").read_text()) == synthetic()


def test_a_campaign_under_way_tells_what_it_has():
    begun = synthetic(rounds=1)
    assert found(begun).picks == {}
    assert found(begun).sentences == ()
