"""Actions from npy, csv and LeRobot's parquet, cut into chunks; what cannot be read is said in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from girih.tokenizers.action_files import read_actions, to_chunks, write_actions

CHUNKS = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_round_trip(suffix: str, tmp_path: Path) -> None:
    write_actions(tmp_path / f"a{suffix}", CHUNKS)
    assert np.array_equal(np.stack(read_actions(tmp_path / f"a{suffix}")), CHUNKS)
    assert [file.name for file in tmp_path.iterdir()] == [f"a{suffix}"]


def test_one_episode_of_plain_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", CHUNKS[0])
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n\n")
    assert np.array_equal(read_actions(tmp_path / "a.npy")[0], CHUNKS[0])
    assert read_actions(tmp_path / "a.csv")[0].tolist() == [[1, 2], [3, 4]]


def test_columns_by_name_and_order_by_frame(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "state,action.x,action.y,episode_index,frame_index\n9,1,2,0,1\n9,3,4,0,0\n9,5,6,1,0\n", "utf-8"
    )
    assert [one.tolist() for one in read_actions(tmp_path / "a.csv")] == [[[3, 4], [1, 2]], [[5, 6]]]


def test_lerobot_parquet_and_folders(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = tmp_path / "data" / "chunk-000"
    folder.mkdir(parents=True)
    for index, chunk in enumerate(CHUNKS):
        table = pyarrow.table({
            "observation.state": [[0.0]] * 5, "action": chunk.tolist(), "episode_index": [index] * 5,
            "frame_index": list(range(5)), "task": ["push"] * 5,
        })  # fmt: skip
        parquet.write_table(table, folder / f"episode_{index:06d}.parquet")
    assert np.array_equal(np.stack(read_actions(tmp_path)), CHUNKS)
    path = folder / "episode_000001.parquet"
    assert np.array_equal(read_actions(path)[0], CHUNKS[1])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="not a whole parquet file") as caught:
        read_actions(path)
    assert "\n" not in str(caught.value)
    parquet.write_table(pyarrow.table({"action": [[1.0, 2.0], [3.0]]}), path)
    with pytest.raises(ValueError, match="rows of different widths"):
        read_actions(path)
    parquet.write_table(pyarrow.table({"action": [[1.0, 2.0]], "episode_index": [0]}), path)
    with pytest.raises(ValueError, match="no columns of actions|holds actions of"):
        parquet.write_table(pyarrow.table({"task": ["a"]}), path)
        read_actions(path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        read_actions(tmp_path / "a.parquet")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 12), st.integers(1, 12))
def test_windows_cover_every_step_and_repeat_the_last(lengths: list[int], horizon: int, stride: int) -> None:
    stride = min(stride, horizon)
    episodes = [np.arange(n, dtype=float)[:, None] + 100 * i for i, n in enumerate(lengths)]
    if not any(lengths):
        with pytest.raises(ValueError, match="no episodes"):
            to_chunks(episodes, horizon, stride)
        return
    windows = to_chunks(episodes, horizon, stride)
    assert set(windows.ravel()) == {value for episode in episodes for value in episode.ravel()}
    assert windows.shape[1:] == (horizon, 1)
    steps = np.diff(windows[..., 0], axis=1)
    assert ((steps == 1) | (steps == 0)).all()


@pytest.mark.parametrize("name, content, message", [
    ("a.txt", b"1", "unknown action file suffix '.txt'"),
    ("a.npy", b"", "not a whole .npy file"),
    ("a.npy", b"\x93NUMPY\x01\x00", "not a whole .npy file"),
    ("a.csv", b"", "no columns|holds no actions"),
    ("a.csv", b"x,y\n", "holds no actions"),
    ("a.csv", b"x,y\n1,2\n3\n", "row 2 has 1 values, the header 2"),
    ("a.csv", b"x,y\n1,two\n", "could not convert"),
    ("a.csv", b"x,y\n1,nan\n", "episode 0, step 0, dimension 1 is nan"),
    ("a.csv", b"\xff\xfe\x00x", "not CSV text"),
    ("a.csv", b"episode_index\n0\n", "has no columns of actions"),
])  # fmt: skip
def test_bad_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_actions(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_bad_arrays_and_arguments(tmp_path: Path) -> None:
    for array, message in (
        (np.zeros(3), r"must hold numbers \[T, D\] or \[N, H, D\]"), (np.array([["a"]]), "must hold numbers"),
        (np.zeros((0, 2)), "holds no actions"), (np.zeros((4, 0)), "holds actions of 0 numbers"),
        (np.array([[object()]]), "not a whole .npy file of numbers"),
    ):  # fmt: skip
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            read_actions(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_actions(tmp_path / "b.npy")
    with pytest.raises(ValueError, match="no LeRobot data set"):
        read_actions(tmp_path / "..")
    with pytest.raises(ValueError, match="stride 0"):
        to_chunks([CHUNKS[0]], 4, 0)
    with pytest.raises(ValueError, match="unknown action file suffix"):
        write_actions(tmp_path / "a.json", CHUNKS)
    with pytest.raises(ValueError, match=r"must be \[N, H, D\]"):
        write_actions(tmp_path / "a.csv", CHUNKS[0])
