from kdal_core.metrics.box_matches import found_right


def boxes(*rows):
    return {
        "boxes": [row[:4] for row in rows],
        "labels": [row[4] for row in rows],
        "scores": [row[5] if len(row) > 5 else 1.0 for row in rows],
    }


def test_a_box_is_right_where_it_overlaps_a_labelled_one_of_its_class_by_half():
    labelled = boxes((0, 0, 4, 4, 0), (10, 10, 14, 14, 1))
    found = boxes((0, 0, 4, 3, 0, 0.9), (10, 10, 14, 14, 0, 0.8), (10, 10, 14, 11, 1, 0.7), (20, 20, 22, 22, 0, 0.6))
    assert found_right(found, labelled).tolist() == [True, False, False, False]


def test_a_box_is_found_once_by_the_best():
    labelled = boxes((0, 0, 4, 4, 0))
    assert found_right(boxes((0, 0, 4, 4, 0, 0.5), (0, 0, 4, 3, 0, 0.6)), labelled).tolist() == [False, True]


def test_the_box_that_overlaps_most_is_taken_and_the_other_is_left_for_the_next():
    labelled = boxes((0, 0, 4, 4, 0), (0, 0, 4, 5, 0))
    found = boxes((0, 0, 4, 5, 0, 0.9), (0, 0, 4, 4, 0, 0.8))
    assert found_right(found, labelled).tolist() == [True, True]


def test_without_boxes_nothing_is_right():
    assert found_right(boxes(), boxes((0, 0, 1, 1, 0))).tolist() == []
    assert found_right(boxes((0, 0, 1, 1, 0, 0.9)), boxes()).tolist() == [False]
