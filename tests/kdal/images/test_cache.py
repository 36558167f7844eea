import os
import subprocess
import sys
import threading

from kdal.images.cache import ByteCache
from tests.paths import PYTHONPATH


def held(folder):
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def test_what_was_put_is_got_and_nothing_else_is(tmp_path):
    cache = ByteCache(tmp_path, 1000)
    assert cache.get("a") is None
    assert cache.put("a", b"bytes") == b"bytes"
    assert (cache.get("a"), cache.get("b")) == (b"bytes", None)


def test_keys_of_any_form_are_apart(tmp_path):
    cache = ByteCache(tmp_path, 100_000)
    keys = ["a", "a/", "../a", "/a", "A", "a" * 5000, "a?x=1", "ä", ""]
    for i, key in enumerate(keys):
        cache.put(key, bytes([i]) * 10)
    assert [cache.get(key) for key in keys] == [bytes([i]) * 10 for i in range(len(keys))]


def test_the_cache_never_holds_more_than_its_limit(tmp_path):
    cache = ByteCache(tmp_path, 10_000)
    for i in range(300):
        cache.put(str(i), os.urandom(i % 900))
        assert held(tmp_path) <= 10_000


def test_the_least_recently_used_leaves_first(tmp_path):
    cache = ByteCache(tmp_path, 10_000)
    for i in range(8):
        cache.put(str(i), bytes(1000))
        age(tmp_path, cache, str(i), seconds=100 - i)
    assert cache.get("0") is not None  # used now: the newest of all
    for i in range(8, 11):
        cache.put(str(i), bytes(1000))
    assert cache.get("0") is not None
    assert cache.get("1") is None
    assert cache.get("10") is not None


def test_what_an_earlier_process_left_counts(tmp_path):
    first = ByteCache(tmp_path, 100_000)
    for i in range(20):
        first.put(str(i), bytes(1000))
    second = ByteCache(tmp_path, 10_000)
    second.put("new", bytes(1000))
    assert held(tmp_path) <= 10_000


def test_a_file_too_large_for_the_cache_is_passed_through(tmp_path):
    cache = ByteCache(tmp_path, 1000)
    assert cache.put("a", bytes(300)) == bytes(300)
    assert cache.get("a") is None


def test_a_cache_that_cannot_be_written_is_passed_by(tmp_path):
    (tmp_path / "file").write_text("")
    cache = ByteCache(tmp_path / "file" / "cache", 1000)
    assert cache.put("a", b"x") == b"x"
    assert cache.get("a") is None


def test_threads_share_the_cache(tmp_path):
    cache = ByteCache(tmp_path, 20_000)
    wrong = []

    def work(seed):
        for i in range(200):
            key = str((i * seed) % 40)
            found = cache.get(key)
            if found is not None and found != key.encode() * 500:
                wrong.append(key)
            cache.put(key, key.encode() * 500)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert held(tmp_path) <= 20_000


def test_processes_share_the_cache_and_its_limit(tmp_path):
    """Each process may exceed the limit by a tenth before it looks at what the others wrote."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from kdal.images.cache import ByteCache\n"
        "cache = ByteCache(Path('cache'), 100_000)\n"
        "for i in range(400):\n"
        "    key = f'{sys.argv[1]}-{i}'\n"
        "    assert cache.put(key, key.encode() * 100) == key.encode() * 100\n"
        "    found = cache.get(f'{1 - int(sys.argv[1])}-{i}')\n"
        "    assert found in (None, f'{1 - int(sys.argv[1])}-{i}'.encode() * 100)\n"
        "print('done')\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": PYTHONPATH},
        )
        for number in range(2)
    ]
    answers = [child.communicate(timeout=120) for child in children]
    assert [out for out, _ in answers] == ["done\n"] * 2, answers
    assert 0 < held(tmp_path / "cache") <= 120_000


def age(folder, cache, key, seconds):
    """Make a key's last use lie so long ago."""
    newest = max(folder.glob("*/*"), key=lambda path: path.stat().st_mtime)
    assert newest.read_bytes() == cache.get(key)
    then = newest.stat().st_mtime - seconds
    os.utime(newest, (then, then))
