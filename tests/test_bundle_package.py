"""A policy file is read without trusting a byte of it: whatever is wrong with it is refused, by name, before it is looked into."""

import dataclasses
import io
import json
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from bundle_fixture import KEY, OTHER_KEY, bundle_bytes, bundle_parts, opened_bundle, small_bundle

import edge_dsac.bundle.container as container
import edge_dsac.bundle.package as package
from edge_dsac.bundle.arrays import ArraysError, read_arrays
from edge_dsac.bundle.container import CENTRAL, END, LIMITS, LOCAL, lay_out, take_apart
from edge_dsac.bundle.golden import make_golden
from edge_dsac.bundle.manifest import BundleError, canonical_json, facts_of, read_manifest
from edge_dsac.bundle.package import check_for_robot, check_version, make_bundle, read_bundle
from edge_dsac.bundle.signing import sign
from edge_dsac.spec.robot import load_robot, robot_from_text

KEYS = (KEY.public,)


def refused(data, because, keys=KEYS, allow_unsigned=False):
    with pytest.raises(BundleError, match=because) as found:
        read_bundle(data, keys, allow_unsigned=allow_unsigned)
    assert found.value.refused
    return str(found.value)


def resealed(change_manifest=None, change_files=None, key=KEY):
    """The small bundle with something changed and everything around it made right again: signature, hashes, CRCs."""
    files = dict(take_apart(small_bundle()))
    files.pop("manifest.json.minisig")
    table = json.loads(files.pop("manifest.json"))
    if change_files:
        change_files(files)
        table["files"] = {name: dataclasses.asdict(facts_of(data)) for name, data in files.items()}
    if change_manifest:
        change_manifest(table)
    files["manifest.json"] = canonical_json(table).encode()
    return lay_out({**files, "manifest.json.minisig": sign(files["manifest.json"], key, "again").file.encode()})


def set_in(path, value):
    def change(table):
        *way, last = path.split(".")
        for key in way:
            table = table[key]
        table[last] = value

    return change


# ---- what is good


def test_a_bundle_gives_back_what_was_put_in():
    spec, actor, files = bundle_parts()
    bundle = opened_bundle()
    assert bundle.signer == KEY.public.hex_id
    assert {name: bundle.files[name] for name in files} == files
    assert bundle.spec.policy_fingerprint == spec.policy_fingerprint
    assert bundle.actor.identity == bundle.identity == int(bundle.manifest.sha256[:16], 16)
    assert bundle.manifest.actor.identity == f"{actor.identity:016x}"
    assert bundle.manifest.layout.observations.scale[3] == float(np.float32(0.4))  # in full, not rounded for people
    obs = bundle.golden.obs
    assert np.array_equal(bundle.actor.act(obs), actor.act(obs))


def test_the_same_input_gives_the_same_bytes():
    parts = bundle_parts()
    spec, actor, files = parts
    assert bundle_bytes(parts=parts) == bundle_bytes(parts=(spec, actor, dict(reversed(files.items()))))
    assert bundle_bytes(parts=parts) != bundle_bytes(parts=parts, version=4)


def test_any_zip_tool_reads_it():
    with zipfile.ZipFile(io.BytesIO(small_bundle())) as file:
        assert file.testzip() is None
        assert file.namelist() == ["actor.npz", "golden.npz", "manifest.json", "manifest.json.minisig"]
        assert json.loads(file.read("manifest.json"))["name"] == "balance_bot-0"


def test_a_file_and_its_bytes_read_alike(tmp_path):
    path = tmp_path / "x.policy"
    path.write_bytes(small_bundle())
    assert read_bundle(path, KEYS).identity == opened_bundle().identity
    path.write_bytes(small_bundle()[:-1])
    with pytest.raises(BundleError, match=r"x\.policy: "):
        read_bundle(path, KEYS)
    with pytest.raises(BundleError, match="cannot be read"):
        read_bundle(tmp_path / "absent.policy", KEYS)


def test_generated_code_travels_in_it():
    parts = bundle_parts(c=True)
    assert b"actor_integer" in opened_bundle(bundle_bytes(parts=parts)).files["actor.c"]


# ---- the container


def stored(entries, **changes):
    """A zip by Python's zipfile, as an attacker would make one: (name, data, change of its ZipInfo)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data, change in entries:
            info = zipfile.ZipInfo(name)
            for key, value in change.items():
                setattr(info, key, value)
            file.writestr(info, data)
    return out.getvalue()


def with_entry(name, data=b"x", **change):
    whole = take_apart(small_bundle())
    return stored([*((one, content, {}) for one, content in whole.items()), (name, data, change)])


def patched(name, **fields):
    """The small bundle with fields of one record of its directory changed."""
    data, raw = bytearray(small_bundle()), name.encode()
    begin = struct.unpack_from("<I", data, len(data) - 6)[0]
    at = data.index(raw, begin) - CENTRAL.size
    while data[at + CENTRAL.size : at + CENTRAL.size + len(raw) + 2] != raw + b"PK":  # manifest.json begins manifest.json.minisig, too
        at = data.index(raw, at + CENTRAL.size + 1) - CENTRAL.size
    entry = container.Entry(*CENTRAL.unpack_from(data, at))._replace(**fields)
    CENTRAL.pack_into(data, at, *entry)
    return bytes(data)


HOSTILE = {
    "path traversal": (lambda: with_entry("../../etc/cron.d/x"), "leads out of the folder"),
    "traversal inside": (lambda: with_entry("native/../actor.npz"), "leads out of the folder"),
    "absolute name": (lambda: with_entry("/etc/passwd"), "absolute or foreign path"),
    "drive letter": (lambda: with_entry("C:x"), "absolute or foreign path"),
    "backslash": (lambda: with_entry("native\\x.so"), "absolute or foreign path"),
    "unknown entry": (lambda: with_entry("hook.py"), "'hook.py' is none of a policy file's"),
    "unknown processor": (lambda: with_entry("native/z80.so"), "is none of a policy file's"),
    "not ASCII": (lambda: with_entry("actör.npz"), "not plain text"),
    "deflated": (lambda: with_entry("actor.c", b"0" * 9999, compress_type=zipfile.ZIP_DEFLATED), "'actor.c' is compressed"),
    "symbolic link": (lambda: with_entry("actor.c", b"/etc/passwd", external_attr=0o120777 << 16), "is a symbolic link"),
    "other date": (lambda: with_entry("actor.c", date_time=(2024, 1, 1, 0, 0, 0)), "not laid out as edge_dsac writes it"),
    "extra field": (lambda: with_entry("actor.c", extra=b"\1\0\2\0ab"), "carries an extra field"),
    "entry's comment": (lambda: with_entry("actor.c", comment=b"hi"), "carries an extra field or a comment"),
    "encrypted": (lambda: patched("actor.npz", flags=1), "'actor.npz' is encrypted"),
    "too large": (lambda: patched("actor.npz", size=LIMITS["actor.npz"] + 1, stored=LIMITS["actor.npz"] + 1), "says it is 16777217 bytes"),
    "bomb": (lambda: patched("actor.npz", size=4_000_000_000), "'actor.npz' is compressed"),
    "beyond the file": (lambda: patched("actor.npz", size=99_999, stored=99_999), "reaches beyond"),
    "overlapping": (lambda: patched("golden.npz", offset=0), "is damaged"),
    "local header differs": (lambda: small_bundle()[:10] + b"\1" + small_bundle()[11:], "not laid out"),
    "trailing bytes": (lambda: small_bundle() + b"x", "1 bytes follow the end record"),
    "leading bytes": (lambda: b"#!/bin/sh\n" + small_bundle(), "something stands before the first entry|bytes before the first entry"),
    "two bundles in a row": (lambda: small_bundle() + small_bundle(), "before the first entry"),
    "comment": (lambda: small_bundle()[:-2] + b"\2\0hi", "2 bytes follow the end record"),
    "several disks": (lambda: small_bundle()[:-18] + b"\1\0" + small_bundle()[-16:], "several disks"),
    "empty": (lambda: b"", "not a policy file"),
    "a weights file": (lambda: take_apart(small_bundle())["actor.npz"], "npy' is none of a policy file's"),
    "text": (lambda: b"hello, I am a policy" * 9, "not a policy file"),
    "too many entries": (lambda: stored([(f"{i}", b"", {}) for i in range(99)]), "99 entries"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_container_is_refused_before_anything_in_it_is_read(case, monkeypatch):
    make, because = HOSTILE[case]
    data = make()
    seen = spy_on_readers(monkeypatch, [])
    refused(data, because)
    assert seen == []


def test_a_name_that_is_there_twice_is_refused():
    whole = take_apart(small_bundle())
    with pytest.warns(UserWarning, match="Duplicate"):
        data = stored([*((name, content, {}) for name, content in whole.items()), ("actor.npz", whole["actor.npz"], {})])
    refused(data, "'actor.npz' is there twice")


def test_all_entries_together_are_bounded(monkeypatch):
    monkeypatch.setattr(container, "TOTAL_LIMIT", 5000)
    refused(small_bundle(), "a policy file has at most 5000")
    monkeypatch.setattr(container, "TOTAL_LIMIT", len(small_bundle()))
    grown = patched("golden.npz", size=4_000_000, stored=4_000_000)
    refused(grown, "bytes together; at most")


def test_a_directory_hidden_inside_the_file_is_refused():
    """Between the entries and the directory that counts stands a second one: some tools would read that."""
    data = small_bundle()
    begin = struct.unpack_from("<I", data, len(data) - 6)[0]
    directory, end = data[begin : -END.size], list(END.unpack(data[-END.size :]))
    shifted = directory + directory
    end[6] = begin + len(directory)
    refused(data[:begin] + shifted + END.pack(*end), "not laid out as edge_dsac writes it")
    end[6] = begin
    refused(data[:begin] + shifted + END.pack(*end), "before the first entry or between the parts, or a second directory")


@pytest.mark.parametrize("name", ["manifest.json", "actor.npz", "golden.npz"])
def test_what_every_bundle_has_must_be_there(name):
    files = take_apart(small_bundle())
    del files[name]
    refused(lay_out(files), f"{name} is missing")


# ---- signature and hashes


def spy_on_readers(monkeypatch, seen):
    """Every way from bytes to arrays, and the manifest's own."""
    for module, name in ((np, "load"), (np.lib.format, "read_magic"), (package, "read_arrays"), (package, "read_manifest")):

        def reader(*arguments, name=name, whole=getattr(module, name), **named):
            seen.append(name)
            return whole(*arguments, **named)

        monkeypatch.setattr(module, name, reader)
    return seen


def flips(data, positions, allowed_readers, monkeypatch):
    seen = spy_on_readers(monkeypatch, [])
    for at in positions:
        for bits in (0x01, 0x80, 0xFF):
            changed = data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
            with pytest.raises(BundleError):
                read_bundle(changed, KEYS)
            assert seen == allowed_readers, f"byte {at}"


def test_a_flipped_byte_is_refused_with_nothing_loaded(monkeypatch):
    flips(small_bundle(), range(0, len(small_bundle()), 61), [], monkeypatch)


@pytest.mark.slow
def test_every_flipped_byte_is_refused_with_nothing_loaded(monkeypatch):
    flips(small_bundle(), range(len(small_bundle())), [], monkeypatch)


def mended(files):
    """As an attacker would: CRCs and lengths are right again, only the signature cannot be."""
    return lay_out(files)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.json.minisig"])
def test_with_mended_crcs_a_flip_is_refused_by_the_signature_with_nothing_loaded(name, monkeypatch):
    files = take_apart(small_bundle())
    seen = spy_on_readers(monkeypatch, [])
    comment = files["manifest.json.minisig"].index(b"\n")
    for at in range(0, len(files[name]), 41):
        if name == "manifest.json.minisig" and 18 < at < comment:
            continue  # the words of the untrusted comment, which nobody signs and nobody is shown
        data = bytearray(files[name])
        data[at] ^= 0x01
        refused(mended({**files, name: bytes(data)}), "minisig|is signed by key")
    assert seen == []


def test_with_mended_crcs_another_file_is_refused_by_its_hash_before_it_is_loaded(monkeypatch):
    files = take_apart(small_bundle())
    seen = spy_on_readers(monkeypatch, [])
    for name in ("actor.npz", "golden.npz"):
        for at in range(0, len(files[name]), 301):
            data = bytearray(files[name])
            data[at] ^= 0x10
            refused(mended({**files, name: bytes(data)}), f"{name} is not the file that was signed")
    assert set(seen) == {"read_manifest"}


def test_a_file_more_or_less_than_signed_is_refused():
    files = take_apart(small_bundle())
    refused(lay_out({**files, "actor.c": b"int main;"}), r"not listed \['actor.c'\]")
    whole = take_apart(bundle_bytes(parts=bundle_parts(c=True)))
    del whole["actor.c"]
    refused(lay_out(whole), r"missing \['actor.c'\]")


@pytest.mark.parametrize("step", [53, pytest.param(1, marks=pytest.mark.slow)])
def test_a_truncated_file_is_refused_at_every_length(step, monkeypatch):
    data = small_bundle()
    seen = spy_on_readers(monkeypatch, [])
    for length in range(0, len(data), step):
        with pytest.raises(BundleError):
            read_bundle(data[:length], KEYS)
    assert seen == []


def test_an_unsigned_bundle_needs_to_be_allowed_and_says_so():
    data = bundle_bytes(key=None)
    refused(data, "is not signed")
    bundle = read_bundle(data, KEYS, allow_unsigned=True)
    assert bundle.signer is None
    assert bundle.signature == "NOT SIGNED"


def test_a_bundle_by_a_key_not_trusted_needs_to_be_allowed_and_says_so():
    data = bundle_bytes(key=OTHER_KEY)
    assert OTHER_KEY.public.hex_id in refused(data, "which is not trusted here")
    bundle = read_bundle(data, KEYS, allow_unsigned=True)
    assert bundle.signature == f"NOT TRUSTED: signed by the unknown key {OTHER_KEY.public.hex_id}"
    assert bundle.trusted_comment == ""


def test_a_wrong_signature_by_a_known_key_is_never_allowed():
    files = take_apart(small_bundle())
    files["manifest.json"] = files["manifest.json"].replace(b'"version": 3', b'"version": 9')
    refused(lay_out(files), "what was signed has been changed", allow_unsigned=True)
    stolen = dataclasses.replace(OTHER_KEY, key_id=KEY.key_id)  # calls itself KEY
    refused(bundle_bytes(key=stolen), "what was signed has been changed")


def test_signed_files_are_checked_even_where_nobody_signed():
    files = take_apart(bundle_bytes(key=None))
    files["golden.npz"] = files["golden.npz"][:-1] + b"\7"
    refused(lay_out(files), "golden.npz is not the file that was signed", allow_unsigned=True)


# ---- the manifest


MANIFESTS = {
    "unknown key": (set_in("precison", {}), "expected a known key, got 'precison'; did you mean 'precision'"),
    "unknown key inside": (set_in("robot.firmwar_fingerprint", ""), "did you mean 'firmware_fingerprint'"),
    "missing key": (lambda table: table.pop("parent"), "parent: expected a value .*, got nothing"),
    "missing key inside": (lambda table: table["actor"].pop("sizes"), r"actor\.sizes: expected a value"),
    "wrong kind": (set_in("version", "3"), "version: expected a value of type int"),
    "a true for a number": (set_in("rates.control_hz", True), "control_hz: expected a value of type int"),
    "another format": (set_in("format", 2), "format 2, this edge_dsac reads 1"),
    "precision": (set_in("precision.chosen", "int4"), "precision.chosen: expected one of 'int8', 'int16', 'float16', 'float32', got 'int4'"),
    "name with a path": (set_in("name", "../x"), "name: expected letters"),
    "parent": (set_in("parent", "abc"), "parent: expected 64 hex digits"),
    "not an object": (set_in("training", []), "training: expected an object"),
    "hash": (set_in("files", {"actor.npz": {"sha256": "0" * 63, "bytes": 1}}), r"actor.npz.sha256: expected 64 hex digits"),
    "rate": (set_in("rates.control_hz", 200), "rates.control_hz says 200, the robot file and the weights inside say 100"),
    "scale": (lambda table: set_in("layout.observations.scale", [1.0] * 11)(table), "layout.observations.scale says"),
    "clip": (lambda table: set_in("layout.observations.clip", [1.0] * 11)(table), "layout.observations.clip says"),
    "action map": (set_in("layout.actions.to_command", [[0.8, 0.8], [0.2, -0.2]]), "to_command says"),
    "fingerprint": (set_in("robot.policy_fingerprint", "0" * 16), "robot.policy_fingerprint says 0000000000000000"),
    "firmware": (set_in("robot.firmware_fingerprint", "0" * 16), "robot.firmware_fingerprint says 0000000000000000"),
    "sizes": (set_in("actor.sizes", [11, 8, 2]), r"actor\.sizes says \(11, 8, 2\)"),
    "identity": (set_in("actor.identity", "0" * 16), "actor.identity says"),
    "robot file": (set_in("robot.spec", "model = 3"), "robot file in the bundle:1: "),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_with_a_fault_is_refused_though_it_is_signed(case):
    change, because = MANIFESTS[case]
    refused(resealed(change), because)


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("{", "not JSON"),
        ("[]\n", "manifest"),
        ('{"a": NaN}', "holds what JSON cannot"),
        ('{"a": 1e999}', "holds what JSON cannot"),
        ('{"format": 1, "format": 1}', "not in canonical form"),
        ('{"format":1}', "not in canonical form"),
        ("[" * 100_000, "not JSON"),
        ("\u00e9", "not JSON"),
    ],
)
def test_what_is_not_the_one_spelling_of_a_manifest_is_refused(text, because):
    with pytest.raises(BundleError, match=because):
        read_manifest(text.encode())


def test_a_manifest_reads_back_as_it_was_written():
    manifest = opened_bundle().manifest
    assert read_manifest(manifest.text.encode()) == manifest
    child = dataclasses.replace(manifest, parent=manifest.sha256, assumed=("the order of the joints",))
    assert read_manifest(child.text.encode()) == child


# ---- what the files hold


def swap_array(file, name, change):
    """Puts another array into an npz file of the bundle."""

    def changed(files):
        with np.load(io.BytesIO(files[file])) as held:
            arrays = dict(held)
        arrays[name] = change(arrays.get(name))
        out = io.BytesIO()
        np.savez(out, **arrays)
        files[file] = out.getvalue()

    return changed


def with_nan(array):
    array = array.copy()
    array.flat[0] = np.nan
    return array


INSIDE = {
    "weights with NaN": (swap_array("actor.npz", "w1", with_nan), "layer 1 holds NaN"),
    "a scale with NaN": (swap_array("actor.npz", "obs_scale", with_nan), "obs_scale expected .* finite"),
    "a shape": (swap_array("actor.npz", "w1", lambda w: w[:, :-1]), "layer 1 expected"),
    "text for weights": (swap_array("actor.npz", "w0", lambda w: w.astype("U8")), "layer 0 expected floating point"),
    "a pickled object": (swap_array("actor.npz", "w9", lambda _: np.array([{"a": 1}], object)), "holds object; expected numbers or text"),
    "another robot's weights": (swap_array("actor.npz", "policy_fingerprint", lambda _: np.array("0" * 16)), "made for policy 0000"),
    "golden with NaN": (swap_array("golden.npz", "obs", with_nan), "expected finite float32"),
    "golden of another shape": (swap_array("golden.npz", "float32", lambda a: a[:2]), "golden.npz: expected 1 to 4096 rows"),
    "golden of no rows": (lambda files: files.update({"golden.npz": no_rows()}), "expected 1 to 4096 rows"),
    "golden of another policy": (swap_array("golden.npz", "float32", lambda a: a + np.float32(0.001)), "not those of actor.npz: 0.001 apart"),
    "golden with more": (swap_array("golden.npz", "spare", lambda _: np.zeros(1)), "expected the arrays obs, float32"),
    "whole numbers as float": (swap_array("golden.npz", "whole", lambda a: a.astype(np.float32)), "whole expected int16"),
    "no npz": (lambda files: files.update({"actor.npz": b"PK"}), "actor.npz: not an npz file"),
    "a bomb": (lambda files: files.update({"actor.npz": bomb(17 << 20)}), "actor.npz: inflates to more than it may"),
    "a bomb that lies": (lambda files: files.update({"actor.npz": lying_bomb()}), "actor.npz: "),
    "a header of terabytes": (lambda files: files.update({"actor.npz": huge_header()}), "says .* of float64, has 8 bytes"),
}  # fmt: skip


def no_rows():
    _, actor, _ = bundle_parts()
    return make_golden(actor, None, np.zeros((0, 11), np.float32))


def bomb(size):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w0.npy", bytes(size))
    return out.getvalue()


def lying_bomb(size=17 << 20):
    """Says it is 1000 bytes, whatever it inflates to."""
    data = bytearray(bomb(size))
    for magic, field in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", data, data.index(magic) + field, 1000)
    return bytes(data)


def huge_header():
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (1 << 40,), "fortran_order": False, "descr": "<f8"})
    return stored([("w0.npy", header.getvalue() + bytes(8), {})])


@pytest.mark.slow
@pytest.mark.parametrize("lies", [False, True])
def test_a_bomb_takes_no_more_memory_than_it_may(lies):
    data = (lying_bomb if lies else bomb)(9 << 20)
    tracemalloc.start()
    with pytest.raises(ArraysError):
        read_arrays(data, "x.npz", 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_an_array_that_is_there_twice_is_refused():
    one = io.BytesIO()
    np.save(one, np.zeros(2))
    with pytest.warns(UserWarning, match="Duplicate"):
        data = stored([("a.npy", one.getvalue(), {}), ("a.npy", one.getvalue(), {})])
    with pytest.raises(ArraysError, match="one of them twice"):
        read_arrays(data, "x.npz", 1 << 20)


@pytest.mark.parametrize("case", [pytest.param(one, marks=pytest.mark.slow) if "bomb" in one else one for one in INSIDE])
def test_a_signed_bundle_with_bad_contents_is_refused(case):
    change, because = INSIDE[case]
    refused(resealed(change_files=change), because)


def test_what_could_not_be_read_is_not_made():
    spec, actor, files = bundle_parts()
    manifest = opened_bundle().manifest
    with pytest.raises(BundleError, match="not the file that was signed"):
        make_bundle(manifest, {**files, "golden.npz": b"x"}, KEY)
    with pytest.raises(BundleError, match="made here"):
        make_bundle(manifest, {**files, "manifest.json": b"x"}, KEY)
    with pytest.raises(BundleError, match="'run.sh' is none"):
        bundle_bytes(parts=(spec, actor, {**files, "run.sh": b"x"}))
    with pytest.raises(BundleError, match="holds what JSON cannot"):
        bundle_bytes(training={"loss": float("nan")})


def test_a_crc_alone_does_not_make_a_container_good():
    """The local header's CRC is right and the directory's too, but they are in another order than written."""
    files = take_apart(small_bundle())
    body, directory = bytearray(), bytearray()
    for name in sorted(files, reverse=True):
        data, raw = files[name], name.encode()
        common = (0, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(raw), 0)
        directory += CENTRAL.pack(b"PK\1\2", 3 << 8 | 20, 20, *common, 0, 0, 0, 0o100644 << 16, len(body)) + raw
        body += LOCAL.pack(b"PK\3\4", 20, *common) + raw + data
    end = END.pack(b"PK\5\6", 0, 0, len(files), len(files), len(directory), len(body), 0)
    refused(bytes(body + directory + end), "not laid out as edge_dsac writes it")


# ---- which robot, which version


def test_a_bundle_fits_the_robot_it_was_made_for(bot):
    check_for_robot(opened_bundle(), bot)


def test_for_another_policy_fingerprint_it_says_what_differs_and_to_train_again(bot):
    changed = robot_from_text(
        bot.text.replace('clip = 1.0\n\n[[observations]]\nterm = "pitch_rate', 'clip = 0.5\n\n[[observations]]\nterm = "pitch_rate')
    )
    with pytest.raises(BundleError) as found:
        check_for_robot(opened_bundle(), changed)
    first, *lines = str(found.value).split("\n")
    assert f"built for balance_bot policy {bot.policy_fingerprint}, balance_bot has {changed.policy_fingerprint}" in first
    assert "train it again" in first
    assert lines == ["  observations[0].clip: bundle 1.0, robot 0.5"]


def test_for_another_firmware_fingerprint_it_says_to_compile_again(bot):
    changed = robot_from_text(bot.text.replace("baud = 921600", "baud = 1000000"))
    with pytest.raises(BundleError) as found:
        check_for_robot(opened_bundle(), changed)
    assert found.value.refused
    assert "compile it again" in str(found.value)
    assert str(found.value).endswith("\n  link.baud: bundle 921600, robot 1000000")


def test_for_another_robot_it_is_refused():
    with pytest.raises(BundleError, match="built for balance_bot policy .*, rover has"):
        check_for_robot(opened_bundle(), load_robot("rover"))


def test_an_older_version_than_the_one_that_runs_is_refused():
    bundle = opened_bundle()  # version 3
    for running in (None, 0, 2, 3):
        check_version(bundle, running)
    with pytest.raises(BundleError, match="is version 3, the robot runs 4"):
        check_version(bundle, 4)
