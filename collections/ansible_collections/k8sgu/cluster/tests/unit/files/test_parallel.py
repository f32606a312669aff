from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import ensure_directory


def test_one_directory_made_by_many_at_once(tmp_path):
    for number in range(50):
        path = str(tmp_path / str(number) / "a" / "b")
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(lambda _attempt, path=path: ensure_directory(path), range(8)))
        assert (tmp_path / str(number) / "a" / "b").is_dir()
