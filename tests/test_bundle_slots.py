"""The slot folder: what may be done with it, a failure at each step of that, and who may come back after a newer one."""

import dataclasses
import json
import shutil
from functools import lru_cache

import pytest
from bundle_fixture import KEY, OTHER_KEY, bundle_bytes, bundle_parts

from edge_dsac.bundle.disk import Disk
from edge_dsac.bundle.keyring import KeyringError, board_key, remove, trusted_keys
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.package import check_version, read_bundle
from edge_dsac.bundle.slot_folder import Outcome, SlotsError, Stage
from edge_dsac.bundle.slots import Slots, create_slots
from edge_dsac.bundle.trial_plan import Habit, TrialError, TrialPlan, read_trial, trial_file

SIZE = 11
PLAN = TrialPlan(window_ticks=100, pairs=3, low=(-5.0,) * SIZE, high=(5.0,) * SIZE, settle_ticks=20)


@lru_cache
def policy(seed, version, parent=None, key=KEY):
    """Signed; `parent`: the bytes of the one it was tuned from."""
    said = {"parent": None if parent is None else sha_of(parent)}
    return bundle_bytes(key, bundle_parts(seed=seed), version=version, **said)


def opened(data):
    return read_bundle(data, [KEY.public, OTHER_KEY.public])


def sha_of(data):
    return opened(data).manifest.sha256


FIRST = policy(3, 3)
CHILD = policy(4, 4, FIRST)
OTHER_CHILD = policy(5, 4, FIRST)
GRANDCHILD = policy(6, 5, CHILD)


def new_slots(tmp_path, disk=None, data=FIRST):
    return create_slots(tmp_path / "slots", data, [KEY.public], disk=disk, now=lambda: "then")


def tried(slots, data):
    slots.propose(data, PLAN)
    identity = opened(data).identity
    slots.begin(identity)
    slots.record(Outcome(identity, Stage.OVER, "all windows flown", {}))


def accepted(slots, *more):
    for data in more:
        tried(slots, data)
        slots.accept()
    return slots


def test_a_new_folder_has_one_policy_that_is_current_and_golden(tmp_path):
    slots = new_slots(tmp_path)
    assert slots.current_path.read_bytes() == FIRST
    assert slots.golden().manifest.sha256 == sha_of(FIRST)
    assert slots.candidate() is None
    assert slots.outcome() is None
    assert slots.ancestor(sha_of(FIRST)).identity == opened(FIRST).identity


def test_a_folder_in_use_is_not_written_over(tmp_path):
    new_slots(tmp_path)
    with pytest.raises(SlotsError, match="is in use already") as error:
        new_slots(tmp_path, data=OTHER_CHILD)
    assert error.value.refused
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letters").touch()
    with pytest.raises(SlotsError, match="is in use already"):
        create_slots(tmp_path / "other", FIRST, [KEY.public])


def test_what_is_no_folder_of_slots_says_how_to_make_one(tmp_path):
    with pytest.raises(SlotsError, match="edge-dsac slots create"):
        Slots(tmp_path).current()
    with pytest.raises(SlotsError, match="does not exist"):
        Slots(tmp_path / "nowhere").drop("why")


@pytest.mark.slow
def test_a_candidate_that_was_tried_becomes_current_and_its_parent_stays_in_the_history(tmp_path):
    slots = new_slots(tmp_path)
    slots.propose(CHILD, PLAN)
    bundle, plan = slots.candidate()
    assert (bundle.identity, plan) == (opened(CHILD).identity, PLAN)
    tried(slots, CHILD)
    slots.accept("it is better")
    assert slots.current_path.read_bytes() == CHILD
    assert slots.candidate() is None
    assert slots.golden().identity == opened(FIRST).identity
    assert [event["event"] for event in slots.events()][-2:] == ["trial over", "accepted"]
    assert slots.events()[-1] == {"at": "then", "event": "accepted", "policy": f"{opened(CHILD).identity:016x}", "why": "it is better"}


@pytest.mark.slow
def test_only_a_trial_that_is_over_can_be_accepted(tmp_path):
    slots = new_slots(tmp_path)
    with pytest.raises(SlotsError, match="no candidate"):
        slots.accept()
    slots.propose(CHILD, PLAN)
    identity = opened(CHILD).identity
    with pytest.raises(SlotsError, match="has not begun"):
        slots.accept()
    for stage in (Stage.BEGUN, Stage.ABORTED, Stage.INTERRUPTED):
        slots.record(Outcome(identity, stage, "", {}))
        with pytest.raises(SlotsError, match=stage.value):
            slots.accept()
    slots.record(Outcome(opened(OTHER_CHILD).identity, Stage.OVER, "a word about another one", {}))
    with pytest.raises(SlotsError, match="interrupted"):
        slots.accept()
    assert slots.accept(untried=True).identity == identity


@pytest.mark.slow
def test_a_new_proposal_knows_nothing_of_the_last_ones_trial(tmp_path):
    slots = new_slots(tmp_path)
    tried(slots, CHILD)
    slots.propose(CHILD, PLAN)
    assert slots.outcome() is None
    with pytest.raises(SlotsError, match="has not begun"):
        slots.accept()


@pytest.mark.slow
def test_a_candidate_is_a_trusted_child_of_what_drives(tmp_path):
    slots = new_slots(tmp_path)
    with pytest.raises(SlotsError, match="was made from .* make it from the current one"):
        slots.propose(GRANDCHILD, PLAN)
    with pytest.raises(SlotsError, match="was made from None"):
        slots.propose(policy(8, 9), PLAN)
    with pytest.raises(BundleError, match="not trusted here"):
        slots.propose(policy(4, 4, FIRST, OTHER_KEY), PLAN)
    with pytest.raises(BundleError, match="is version 2, the robot runs 3"):
        slots.propose(policy(4, 2, FIRST), PLAN)
    with pytest.raises(TrialError, match="the envelope has 12 entries, the policy sees 11"):
        slots.propose(CHILD, TrialPlan(100, 1, (0.0,) * 12, (1.0,) * 12))
    assert slots.candidate() is None


@pytest.mark.slow
def test_a_candidate_is_dropped_by_its_name_or_whoever_it_is(tmp_path):
    slots = new_slots(tmp_path)
    assert not slots.drop("there is none")
    slots.propose(CHILD, PLAN)
    assert not slots.drop("another one was meant", opened(OTHER_CHILD).identity)
    assert slots.candidate() is not None
    assert slots.drop("it shook", opened(CHILD).identity)
    assert slots.candidate() is None
    assert slots.events()[-1]["why"] == "it shook"
    assert slots.events()[-1]["policy"] == f"{opened(CHILD).identity:016x}"


def test_a_candidate_that_goes_while_it_is_read_is_no_candidate_and_a_broken_one_is_an_error(tmp_path, monkeypatch):
    slots = new_slots(tmp_path)
    slots.propose(CHILD, PLAN)
    slots.known.clear()
    read = slots.opened

    def gone_first(path):
        path.unlink()
        return read(path)

    with monkeypatch.context() as taken:
        taken.setattr(slots, "opened", gone_first)
        assert slots.candidate() is None
    slots.candidate_path.write_bytes(b"broken")
    with pytest.raises(BundleError):
        slots.candidate()


def test_a_candidate_with_a_broken_plan_can_still_be_dropped(tmp_path):
    slots = new_slots(tmp_path)
    slots.propose(CHILD, PLAN)
    (slots.folder / "trial.json").write_text("{}")
    with pytest.raises(TrialError, match="not a trial"):
        slots.candidate()
    assert slots.drop("its plan cannot be read")


@pytest.mark.slow
def test_undo_brings_the_parent_back_byte_by_byte_and_again_its_parent(tmp_path):
    slots = accepted(new_slots(tmp_path), CHILD, GRANDCHILD)
    slots.undo()
    assert slots.current_path.read_bytes() == CHILD
    slots.undo()
    assert slots.current_path.read_bytes() == FIRST
    with pytest.raises(SlotsError, match="was not tuned from another policy"):
        slots.undo()


@pytest.mark.slow
def test_undo_drops_the_candidate_that_was_made_from_what_is_taken_back(tmp_path):
    slots = accepted(new_slots(tmp_path), CHILD)
    slots.propose(GRANDCHILD, PLAN)
    slots.undo()
    assert slots.candidate() is None
    assert [event["event"] for event in slots.events()][-2:] == ["dropped", "undone"]


@pytest.mark.slow
def test_undo_without_the_parent_in_the_history_says_so_and_changes_nothing(tmp_path):
    slots = accepted(new_slots(tmp_path), CHILD)
    slots.history_path(sha_of(FIRST)).unlink()
    with pytest.raises(SlotsError, match="is not in .*undo --all"):
        slots.undo()
    assert slots.current_path.read_bytes() == CHILD


@pytest.mark.slow
def test_golden_is_what_a_person_promoted_last(tmp_path):
    slots = accepted(new_slots(tmp_path), CHILD)
    slots.promote(forced=True)
    accepted(slots, GRANDCHILD)
    slots.restore_golden()
    assert slots.current_path.read_bytes() == CHILD


def test_a_line_cut_off_by_a_crash_costs_no_other_event(tmp_path):
    slots = new_slots(tmp_path)
    with (slots.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "half a li')
    slots.propose(CHILD, PLAN)
    assert [event["event"] for event in slots.events()] == ["created", "proposed"]


# ---- a failure at each step


class Failing(Disk):
    """Fails at one operation, before it or, where data is written, in the middle of it."""

    def __init__(self, at):
        self.left = at

    def step(self):
        self.left -= 1
        if self.left < 0:
            raise OSError("the power went")

    def write(self, path, data):
        if self.left == 0:
            path.with_name(f".{path.name}.unfinished").write_bytes(data[: len(data) // 2])
        self.step()
        return super().write(path, data)

    def rename(self, source, target):
        self.step()
        super().rename(source, target)

    def remove(self, path):
        self.step()
        super().remove(path)

    def sync(self, folder):
        self.step()
        super().sync(folder)

    def append(self, path, line):
        if self.left == 0:
            with path.open("ab") as file:
                file.write(line[: len(line) // 2])
        self.step()
        super().append(path, line)


def seen(slots):
    candidate = slots.candidate()
    return slots.current_path.read_bytes(), candidate and candidate[0].identity, slots.golden().identity


ACTIONS = {
    "propose": lambda slots: slots.propose(GRANDCHILD, PLAN),
    "propose another": lambda slots: slots.propose(policy(7, 5, CHILD), PLAN),
    "accept": lambda slots: slots.accept(),
    "drop": lambda slots: slots.drop("why"),
    "undo": lambda slots: slots.undo(),
    "restore": lambda slots: slots.restore_golden(),
    "promote": lambda slots: slots.promote(forced=True),
    "begin": lambda slots: slots.begin(opened(GRANDCHILD).identity),
}
HAS_NO_CANDIDATE = ("propose",)


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_a_crash_at_any_step_leaves_the_folder_as_it_was_or_as_it_should_be(tmp_path, action):
    base = accepted(new_slots(tmp_path), CHILD)
    if action not in HAS_NO_CANDIDATE:
        tried(base, GRANDCHILD)
    whole = tmp_path / "whole"
    shutil.copytree(base.folder, whole)
    after = Slots(whole, [KEY.public])
    before = seen(after)
    ACTIONS[action](after)
    wanted = seen(after)
    between = {(current, candidate, golden) for current in (before[0], wanted[0]) for candidate in (before[1], None, wanted[1])
               for golden in (before[2], wanted[2])}  # fmt: skip
    steps = 0
    for at in range(40):
        broken = tmp_path / f"broken-{at}"
        shutil.copytree(base.folder, broken)
        try:
            ACTIONS[action](Slots(broken, [KEY.public], disk=Failing(at)))
        except OSError:
            steps += 1
        again = Slots(broken, [KEY.public])
        found = seen(again)
        assert found in between, f"failed at {at}"
        assert found[1] is None or found[0] != GRANDCHILD, "current and candidate at once"
        again.events()
        parent = again.current().manifest.parent
        assert parent is None or again.ancestor(parent) is not None
        if steps == at:  # nothing failed any more
            assert found == wanted
            break
        if found[0] == before[0] and (found[1] == before[1]) and action != "propose another":
            ACTIONS[action](again)  # and it can be done once more
            assert seen(again) == wanted
    assert steps >= 3


@pytest.mark.slow
def test_a_crash_while_the_folder_is_made_leaves_one_that_can_be_made(tmp_path):
    for at in range(40):
        try:
            create_slots(tmp_path / str(at), FIRST, [KEY.public], disk=Failing(at))
        except OSError:
            slots = Slots(tmp_path / str(at), [KEY.public])
            if not slots.current_path.exists():
                create_slots(tmp_path / str(at), FIRST, [KEY.public])
            assert slots.current().identity == opened(FIRST).identity
        else:
            assert at >= 9
            return
    raise AssertionError("never whole")


# ---- who may come back


@pytest.mark.slow
def test_an_older_stranger_is_refused_and_the_running_ones_line_may_return(tmp_path):
    slots = accepted(new_slots(tmp_path), CHILD, GRANDCHILD)
    running = slots.current()
    allowed = slots.may_return(running.manifest.parent)
    assert allowed == {sha_of(FIRST), sha_of(CHILD)}
    check_version(opened(CHILD), running.manifest.version, allowed)
    check_version(opened(FIRST), running.manifest.version, allowed)
    stranger = policy(9, 3)
    slots.history_path(sha_of(stranger)).write_bytes(stranger)  # lying there makes no ancestor
    with pytest.raises(BundleError, match="is version 3, the robot runs 5"):
        check_version(opened(stranger), running.manifest.version, slots.may_return(running.manifest.parent))


@pytest.mark.slow
def test_a_file_under_an_ancestors_name_is_not_that_ancestor(tmp_path):
    slots = accepted(new_slots(tmp_path), CHILD, GRANDCHILD)
    slots.history_path(sha_of(CHILD)).write_bytes(OTHER_CHILD)
    assert slots.ancestor(sha_of(CHILD)) is None
    with pytest.raises(SlotsError, match="is not in"):
        slots.undo()


@pytest.mark.slow
def test_what_is_opened_to_take_over_may_be_the_parent_of_what_runs_and_no_other_older_one(tmp_path, monkeypatch, bot):
    from edge_dsac.bundle.keyring import trust
    from edge_dsac.cli.policy import check_policy

    monkeypatch.setenv("EDGE_DSAC_KEYS", str(tmp_path / "keys"))
    trust(tmp_path / "keys", dataclasses.replace(KEY.public, name="me"))

    def ready(data, **more):
        path = tmp_path / "one.policy"
        path.write_bytes(data)
        return check_policy(path, bot, **more)

    running = ready(CHILD).running
    assert ready(FIRST, running=running).bundle.identity == opened(FIRST).identity
    with pytest.raises(BundleError, match="is version 3, the robot runs 4, which was not tuned from it"):
        ready(policy(9, 3), running=running)
    newest = ready(GRANDCHILD).running
    with pytest.raises(BundleError, match="is version 3, the robot runs 5"):
        ready(FIRST, running=newest)
    assert ready(FIRST, running=newest, ancestors=[sha_of(FIRST)]).bundle is not None


# ---- plans, and the board's key


def test_a_plan_comes_back_as_it_was():
    assert read_trial(trial_file(0xABC, PLAN)) == (0xABC, PLAN)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window_ticks": 0}, "window_ticks"),
        ({"window_ticks": 2.5}, "window_ticks"),
        ({"pairs": True}, "pairs"),
        ({"pairs": 10**6}, "pairs"),
        ({"settle_ticks": 100}, "leave nothing"),
        ({"low": [1.0]}, "plan.low has 1 entries"),
        ({"low": [6.0] * SIZE}, "is empty"),
        ({"high": ["5"] * SIZE}, "high"),
        ({"max_limited_share": 1.5}, "max_limited_share"),
        ({"max_action_shift": 0.0}, "max_action_shift"),
        ({"max_void": 3}, "max_void"),
        ({"habit": {"entries": [1, 2], "mean": [0.0], "whitening": [1.0] * 4, "most": 1.0}}, "for 2 entries expected 2 means"),
        ({"habit": {"entries": [1, 2], "mean": [0.0] * 2, "whitening": [1.0] * 3, "most": 1.0}}, "got 2 and 3 numbers"),
        ({"habit": {"entries": [1, 2], "mean": [0.0] * 2, "whitening": [1.0] * 6, "most": 1.0}}, "got 2 and 6 numbers"),
        ({"habit": {"entries": [1, 2], "mean": [0.0] * 2, "whitening": [], "most": 1.0}}, "got 2 and 0 numbers"),
        ({"habit": {"entries": [], "mean": [], "whitening": [1.0], "most": 1.0}}, "got 0 and 1 numbers"),
        ({"habit": {"entries": [-1], "mean": [0.0], "whitening": [1.0], "most": 1.0}}, "entries"),
    ],
    ids=str,
)
def test_a_plan_with_a_wrong_value_is_refused_by_its_name(change, said):
    table = json.loads(trial_file(1, PLAN))
    table["plan"].update(change)
    with pytest.raises(TrialError, match=said):
        read_trial(json.dumps(table).encode())


def test_a_habit_of_other_observations_is_refused():
    with pytest.raises(TrialError, match="tells of entry 12, the policy sees 12"):
        dataclasses.replace(PLAN, low=(-1.0,) * 12, high=(1.0,) * 12, habit=Habit((0, 12), (0.0,) * 2, (1.0,) * 4, 1.0)).check_for(12)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"candidate": "1", "plan": {}}', b"[" * 100_000, b"\xff"])
def test_what_is_no_trial_is_refused(data):
    with pytest.raises(TrialError, match=r"trial\.json"):
        read_trial(data)


def test_the_order_of_the_windows_is_fair_seeded_and_in_pairs():
    plan = TrialPlan(100, 500, (0.0,), (1.0,), seed=7)
    order = plan.order()
    assert order == plan.order()
    assert all(order[i] != order[i + 1] for i in range(0, 1000, 2))
    assert 200 < sum(order[::2]) < 300
    assert order != TrialPlan(100, 500, (0.0,), (1.0,), seed=8).order()
    assert plan.most_new_ticks == 520 * 100


def test_the_boards_key_is_made_once_and_trusted_here(tmp_path):
    key = board_key(tmp_path, "robot-7")
    assert board_key(tmp_path, "robot-7").seed == key.seed
    (trusted,) = trusted_keys(tmp_path)
    assert trusted.raw == key.public.raw
    assert trusted.name.startswith("board-")
    assert "robot" not in trusted.name
    assert (tmp_path / "secret" / f"{trusted.name}.key").stat().st_mode & 0o777 == 0o600
    assert board_key(tmp_path, "robot-8").seed != key.seed


def test_a_board_key_that_a_person_no_longer_trusts_signs_nothing(tmp_path):
    board_key(tmp_path, "robot-7")
    remove(tmp_path, trusted_keys(tmp_path)[0].name)
    with pytest.raises(KeyringError, match="is not trusted here"):
        board_key(tmp_path, "robot-7")
