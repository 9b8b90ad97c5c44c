"""Models that stay loaded, in the real sandbox: re-use, what a model can get wrong, and that all of them end."""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from meshnode.runtimes import meshmodel, pool, warm
from meshnode.runtimes.pool import WarmKey, WarmPool
from meshnode.runtimes.warm import AnswerFailed, ModelBroken, WarmModel

MIB = 1 << 20
KEY = WarmKey("bafkmodel", "somebody", 1.0, 64 * MIB)
COUNTING = """
import os
from meshmodel import serve
answered = 0

def handler(input):
    global answered
    answered += 1
    if "do" in input:
        exec(input["do"])
    return [os.getpid(), answered, input.get("x"), os.environ.get("MESH_SHARD_INDEX")]

serve(handler)
"""


@dataclass
class Loaned:
    """A pool over a place, and a way to ask its models."""

    place: object
    pool: WarmPool
    program: str = COUNTING
    loads: list[bool] = field(default_factory=list)

    def make_request(self, run_id: str, input_dir: Path, output_dir: Path):
        request = self.place.request(self.program, memory_bytes=64 * MIB)
        return type(request)(
            run_id=run_id,
            command=request.command,
            model_dir=request.model_dir,
            input_dir=input_dir,
            output_dir=output_dir,
            memory_bytes=request.memory_bytes,
            output_bytes_max=16 * MIB,
            env=request.env,
        )

    @asynccontextmanager
    async def lent(self, key: WarmKey = KEY) -> AsyncIterator[WarmModel]:
        async with self.pool.lent(key, self.make_request) as (model, loaded):
            if not loaded:
                await model.use(lambda: model.loaded(60), self.pool.limiter)
            self.loads.append(loaded)
            yield model

    async def ask(self, *inputs: dict, key: WarmKey = KEY, timeout_s: float = 60) -> list:
        async with self.lent(key) as model:
            return await self.ask_it(model, *inputs, timeout_s=timeout_s)

    async def ask_it(self, model: WarmModel, *inputs: dict, timeout_s: float = 60) -> list:
        def work() -> list:
            return [
                model.ask(json.dumps(value).encode(), {"MESH_SHARD_INDEX": str(index)}, timeout_s)
                for index, value in enumerate(inputs)
            ]

        return await model.use(work, self.pool.limiter)


def with_pool(place, test: Callable, *, program: str = COUNTING, idle_s: float = 600, **settings: int) -> None:
    """Run `test` with a pool, and see to it that nothing is left when the pool has ended."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            values = {"slots": 4, "memory_bytes": 1024 * MIB, **settings}
            made = await WarmPool.start(place.runtime, place.folder / "warm", nursery, idle_s=idle_s, **values)
            with trio.fail_after(60):
                await test(Loaned(place, made, program))
            nursery.cancel_scope.cancel()
        assert not list((place.folder / "warm").iterdir())

    place.folder.mkdir(exist_ok=True)
    trio.run(main)
    assert place.leftovers() == []


def test_a_loaded_model_answers_task_after_task(sandbox_place) -> None:
    async def test(loaned: Loaned) -> None:
        first = await loaned.ask({"x": 1}, {"x": [{"ä": None}]})
        second = await loaned.ask({"x": "again"})
        assert [answer[1:] for answer in first + second] == [
            [1, 1, "0"],
            [2, [{"ä": None}], "1"],
            [3, "again", "0"],
        ]
        assert len({answer[0] for answer in first + second}) == 1, "one process"
        assert loaned.loads == [False, True]

    with_pool(sandbox_place, test)


def test_two_tasks_at_once_have_a_process_each(sandbox_place) -> None:
    async def test(loaned: Loaned) -> None:
        async with loaned.lent() as one, loaned.lent() as other:
            assert (await loaned.ask_it(one, {}))[0][1] == (await loaned.ask_it(other, {}))[0][1] == 1
        assert loaned.pool.idle == (KEY, KEY)

    with_pool(sandbox_place, test)


@pytest.mark.parametrize(
    "other",
    [
        WarmKey("bafkother", "somebody", 1.0, 64 * MIB),
        WarmKey("bafkmodel", "somebody else", 1.0, 64 * MIB),
        WarmKey("bafkmodel", "somebody", 2.0, 64 * MIB),
        WarmKey("bafkmodel", "somebody", 1.0, 65 * MIB),
    ],
)
def test_a_process_is_never_shared_where_the_key_differs(make_place: Callable, other: WarmKey) -> None:
    async def test(loaned: Loaned) -> None:
        await loaned.ask({})
        await loaned.ask({}, key=other)
        assert loaned.loads == [False, False]

    with_pool(make_place("bubblewrap"), test)


def test_what_the_handler_raises_is_that_questions_failure_alone(sandbox_place) -> None:
    async def test(loaned: Loaned) -> None:
        with pytest.raises(AnswerFailed, match=r"^ValueError: not this one$"):
            await loaned.ask({"do": "raise ValueError('not this one')"})
        for unfit in ("float('nan')", "{1, 2}", "'x' * (17 << 20)"):
            with pytest.raises(AnswerFailed):
                await loaned.ask({"do": f"input['x'] = {unfit}"})
        assert (await loaned.ask({"x": 5}))[0][2] == 5
        assert loaned.loads == [False, True, True, True, True]

    with_pool(sandbox_place, test)


@pytest.mark.parametrize(
    ("do", "cause", "code", "tail"),
    [
        ("print('on stdout', flush=True); os._exit(3)", "exited", 3, "on stdout"),
        ("import sys; print('last words', file=sys.stderr); sys.exit(4)", "exited", 4, "last words"),
        ("os.kill(os.getpid(), 11)", "exited", 139, ""),
    ],
)
def test_a_crash_ends_one_process_and_says_how(sandbox_place, do: str, cause: str, code: int, tail: str) -> None:
    async def test(loaned: Loaned) -> None:
        async with loaned.lent() as model:
            with pytest.raises(ModelBroken):
                await loaned.ask_it(model, {"x": 1}, {"do": do})
            ended = await model.ended(grace_s=30)
        assert (ended.cause, ended.exit_code) == (cause, code)
        assert tail in ended.tail
        assert loaned.pool.idle == ()
        assert (await loaned.ask({}))[0][1] == 1, "the next task finds a new process"

    with_pool(sandbox_place, test)


def test_too_much_memory_is_told_apart(make_place: Callable, control_groups: object) -> None:
    async def test(loaned: Loaned) -> None:
        async with loaned.lent() as model:
            with pytest.raises(ModelBroken):
                await loaned.ask_it(model, {"do": "b = [bytearray(b'x') * (1 << 20) for _ in range(200)]"})
            assert (await model.ended(grace_s=30)).cause == "out-of-memory"

    with_pool(make_place("bubblewrap"), test)


def test_too_much_output_ends_the_model(make_place: Callable) -> None:
    fill = (
        "import time\nfor n in range(1000):\n"
        "    open(os.environ['MESH_OUTPUT'] + f'/{n}', 'wb').write(bytes(1 << 20)); time.sleep(0.01)\n"
    )

    async def test(loaned: Loaned) -> None:
        async with loaned.lent() as model:
            with pytest.raises(ModelBroken):
                await loaned.ask_it(model, {"do": fill})
            assert (await model.ended(grace_s=30)).cause == "output-too-large"

    with_pool(make_place("bubblewrap"), test)


def test_a_question_that_takes_too_long_ends_the_process(sandbox_place) -> None:
    async def test(loaned: Loaned) -> None:
        with pytest.raises(ModelBroken, match=r"^not done within 0\.3 s$"):
            await loaned.ask({"do": "import time; time.sleep(100)"}, timeout_s=0.3)
        assert loaned.pool.idle == ()

    with_pool(sandbox_place, test)


RAW = """
import json, os, socket
channel = socket.socket(fileno=int(os.environ["MESH_SOCKET"]))
lines = channel.makefile("rb")
channel.sendall(b'{"ready": 1}\\n')
for line in lines:
    channel.sendall(json.loads(line)["input"]["say"].encode("latin-1"))
"""


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        ("hello\n", "not JSON"),
        ('{"id": 1, "output": NaN}\n', "NaN is not a JSON number"),
        ('{"id": 1, "output": 1, "output": 2}\n', "appears twice"),
        ('{"id": 1, "output": "\xff"}\n', "not UTF-8"),
        ("[" * 70 + "]" * 70 + "\n", "levels deep"),
        ("[]\n", "not a JSON object"),
        ("\n", "not JSON"),
        ('{"id": 2, "output": 1}\n', "not asked"),
        ("x" * 5000, "longer than 4096 bytes"),
        ('{"id": 1', "not done within"),
    ],
)
def test_a_line_that_is_no_answer_ends_the_process(make_place: Callable, monkeypatch, say: str, reason: str) -> None:
    monkeypatch.setattr(warm, "ANSWER_BYTES_MAX", 4096)

    async def test(loaned: Loaned) -> None:
        with pytest.raises(ModelBroken, match=reason):
            await loaned.ask({"say": say}, timeout_s=0.5 if "done" in reason else 60)
        assert loaned.pool.idle == ()

    with_pool(make_place("bubblewrap"), test, program=RAW)


def test_an_answer_too_many_is_never_the_next_ones(make_place: Callable) -> None:
    async def test(loaned: Loaned) -> None:
        twice = '{"id": 1, "output": 1}\n{"id": 1, "output": "stale"}\n'
        assert await loaned.ask({"say": twice}) == [1]
        with pytest.raises(ModelBroken, match="not asked"):
            await loaned.ask({"say": '{"id": 2, "output": 2}\n'})

    with_pool(make_place("bubblewrap"), test, program=RAW)


def test_an_answer_that_is_too_long_is_a_failure_and_serving_goes_on(capsys) -> None:
    answer = json.loads(meshmodel._answer(lambda input: "x" * meshmodel.ANSWER_BYTES_MAX, {"id": 1, "input": {}}))
    assert "write it to a file" in answer["error"]


@pytest.mark.parametrize(
    ("program", "code"), [("raise SystemExit(5)", 5), ("print('never serves')", 0), ("import nothing_like_it", 1)]
)
def test_a_model_that_cannot_be_loaded_says_why(make_place: Callable, program: str, code: int) -> None:
    async def test(loaned: Loaned) -> None:
        async with loaned.pool.lent(KEY, loaned.make_request) as (model, _):
            with pytest.raises(ModelBroken):
                await model.use(lambda: model.loaded(60), loaned.pool.limiter)
            assert (await model.ended(grace_s=30)).exit_code == code

    with_pool(make_place("bubblewrap"), test, program=program)


def test_a_cancelled_question_ends_the_process(sandbox_place, until: Callable) -> None:
    async def test(loaned: Loaned) -> None:
        await loaned.ask({})
        with trio.move_on_after(0.3) as scope:
            await loaned.ask({"do": "import time; time.sleep(100)"})
        assert scope.cancelled_caught
        assert loaned.pool.idle == ()

    with_pool(sandbox_place, test)


def test_a_model_without_work_is_ended_after_a_while(make_place: Callable, until: Callable) -> None:
    async def test(loaned: Loaned) -> None:
        await loaned.ask({})
        await until(lambda: not loaned.pool.idle)
        await until(lambda: not list((loaned.place.folder / "warm").iterdir()))
        assert [left for left in loaned.place.leftovers() if "process" in left] == []

    with_pool(make_place("bubblewrap"), test, idle_s=0.2)


def test_an_idle_model_that_dies_is_not_lent(make_place: Callable, until: Callable) -> None:
    async def test(loaned: Loaned) -> None:
        await loaned.ask({})
        async with loaned.lent() as model:
            assert loaned.loads == [False, True]
        for left in loaned.place.leftovers():
            if left.startswith("process "):
                os.kill(int(left.split()[1]), signal.SIGKILL)
        await until(lambda: not model.is_running)
        await loaned.ask({})
        assert loaned.loads == [False, True, False]

    with_pool(make_place("bubblewrap"), test)


OTHERS = [WarmKey(f"bafk{name}", "somebody", 1.0, 64 * MIB) for name in ("a", "b", "c")]


@pytest.mark.parametrize("room", [{"slots": 2}, {"memory_bytes": 128 * MIB}])
def test_the_model_used_longest_ago_makes_way(make_place: Callable, room: dict[str, int]) -> None:
    async def test(loaned: Loaned) -> None:
        a, b, c = OTHERS
        for key in (a, b, a, c):
            await loaned.ask({}, key=key)
        assert loaned.pool.idle == (a, c)
        async with loaned.pool.room(64 * MIB):
            assert loaned.pool.idle == (c,), "a run of any other kind finds room too"

    with_pool(make_place("bubblewrap"), test, **room)


def test_models_make_way_when_the_machine_is_short_of_memory(make_place: Callable, monkeypatch) -> None:
    async def test(loaned: Loaned) -> None:
        await loaned.ask({})
        async with loaned.pool.room(MIB):
            assert loaned.pool.idle == (KEY,)
        monkeypatch.setattr(pool.machine, "memory_available", lambda: (1 * MIB, 1024 * MIB))
        async with loaned.pool.room(MIB):
            assert loaned.pool.idle == ()

    with_pool(make_place("bubblewrap"), test)


def test_files_are_seen_on_both_sides_and_gone_for_the_next(sandbox_place) -> None:
    look = (
        "listed = [sorted(os.listdir(os.environ[n])) for n in ('MESH_INPUT', 'MESH_OUTPUT')]\n"
        "text = open(os.environ['MESH_INPUT'] + '/given').read() if listed[0] else ''\n"
        "open(os.environ['MESH_OUTPUT'] + '/made', 'w').write(text)\n"
        "input['x'] = [listed, text]\n"
    )

    async def test(loaned: Loaned) -> None:
        async with loaned.lent() as model:
            (model.request.input_dir / "given").write_text("words")
            assert not model.has_written()
            answers = await loaned.ask_it(model, {"do": look})
            assert answers[0][2] == [[["given"], []], "words"]
            assert model.has_written()
            assert (model.request.output_dir / "made").read_text() == "words"
            model.tidy()
            answers = await loaned.ask_it(model, {"do": look})
            assert answers[0][2] == [[[], []], ""]

    with_pool(sandbox_place, test)


def test_without_a_node_the_same_program_answers_one_task(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "input.json").write_text('{"x": 2}')
    monkeypatch.setenv("MESH_INPUT", str(tmp_path))
    monkeypatch.setenv("MESH_OUTPUT", str(tmp_path))
    monkeypatch.delenv("MESH_SOCKET", raising=False)
    meshmodel.serve(lambda input: {"twice": 2 * input["x"]})
    assert json.loads((tmp_path / "output.json").read_text()) == {"twice": 4}
