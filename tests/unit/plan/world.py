"""A model of the processes that walk a plan: every way in which their steps can fall together.

Parent and child talk over one pair of sockets; the child's end is the stage's and init's both. A message waits in its queue until
somebody reads it, so only reading can stand still.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocirt.plan import Plan

# (index of the step, what is done, with what): "step" (nothing that another process sees), "send", "take", "start" or "join"
Micro = tuple[int, str, str]
PROCESSES = ("parent", "stage", "init")
# Positions of parent, stage and init (-1: not there yet), what is on its way up to the parent, what is on its way down
State = tuple[tuple[int, int, int], tuple[str, ...], tuple[str, ...]]


def _micro(plan: Plan, process: str) -> list[Micro]:
    found: list[Micro] = []
    for index, (side, operation, arguments, _, _) in enumerate(plan):
        if side != process and not (process == "init" and side == "start"):
            continue
        first = str(arguments[0]) if arguments else ""
        match operation:
            case "sync.tell":
                found.append((index, "send", first))
            case "sync.expect" | "sync.leave_parent":
                found.append((index, "take", first))
            case "console.send":
                found.append((index, "send", "a descriptor"))
            case "console.receive":
                found.append((index, "take", "a descriptor"))
            case "process.clone":
                found.append((index, "start", first))
            case "process.clone_sibling":
                found += [(index, "start", first), (index, "send", "a pid")]
            case "process.meet":
                found += [(index, "take", "a pid"), (index, "join", "stage")]
            case _:
                found.append((index, "step", operation))
    return found


class World:
    """All that can happen to a plan: `moves` are the micro-steps taken, with the positions before; `problems` in words."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.programs = {process: _micro(plan, process) for process in PROCESSES}
        self.moves: set[tuple[str, int, tuple[int, int, int]]] = set()
        self.problems: set[str] = set()
        self._explore()

    def _explore(self) -> None:
        start: State = ((0, -1, -1), (), ())
        seen = {start}
        todo = [start]
        while todo:
            state = todo.pop()
            following = list(self._following(state))
            if not following:
                self._at_the_end(state)
            for each in following:
                if each not in seen:
                    seen.add(each)
                    todo.append(each)

    def _following(self, state: State) -> Iterator[State]:
        positions, up, down = state
        for number, process in enumerate(PROCESSES):
            place = positions[number]
            program = self.programs[process]
            if not 0 <= place < len(program):
                continue
            index, what, word = program[place]
            after = list(positions)
            after[number] += 1
            new_up, new_down = up, down
            if what == "send":
                if process == "parent":
                    new_down = (*down, word)
                else:
                    new_up = (*up, word)
            elif what == "take":
                queue = up if process == "parent" else down
                if not queue:
                    continue
                if queue[0] != word:
                    self.problems.add(f"{process} waits for {word!r} (step {index}) and may get {queue[0]!r}")
                    continue
                if process == "parent":
                    new_up = up[1:]
                else:
                    new_down = down[1:]
            elif what == "start":
                child = PROCESSES.index(word)
                if positions[child] >= 0:
                    self.problems.add(f"{word} is made twice (step {index})")
                    continue
                after[child] = 0
            elif what == "join" and positions[1] < len(self.programs["stage"]):
                continue
            self.moves.add((process, place, positions))
            yield (after[0], after[1], after[2]), new_up, new_down

    def _at_the_end(self, state: State) -> None:
        positions, up, down = state
        for number, process in enumerate(PROCESSES):
            program = self.programs[process]
            if program and positions[number] < 0:
                self.problems.add(f"{process} is never made")
            elif 0 <= positions[number] < len(program):
                self.problems.add(f"{process} stands still at step {program[positions[number]][0]}")
        if up or down:
            self.problems.add(f"nobody reads {up or down}")

    def always_before(self, first: int, second: int) -> bool:
        """Whether step `first` is done by the time that step `second` begins, however the processes are scheduled."""
        number, done = self._end_of(first)
        taken = 0
        for process, place, positions in self.moves:
            if self.programs[process][place][0] == second:
                taken += 1
                if positions[number] < done:
                    return False
        assert taken, f"step {second} is never reached"
        return True

    def _end_of(self, index: int) -> tuple[int, int]:
        """The process of a step, and the position that it has once the step is done."""
        for number, process in enumerate(PROCESSES):
            places = [place for place, micro in enumerate(self.programs[process]) if micro[0] == index]
            if places:
                return number, places[-1] + 1
        raise AssertionError(index)
