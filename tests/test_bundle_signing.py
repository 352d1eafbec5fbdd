"""Keys and signatures are minisign's, to the byte; the folder of keys keeps secrets to their owner."""

import base64
import shutil
import stat
import subprocess

import pytest
from bundle_fixture import KEY, OTHER_KEY, write_bundle

from edge_dsac.bundle.keyring import KeyringError, key_folder, new_key, remove, secret_key, secret_names, trust, trusted_keys
from edge_dsac.bundle.signing import (
    SigningError,
    make_secret_key,
    read_public_key,
    read_secret_key,
    read_signature,
    scrypt_cost,
    secret_key_file,
    sign,
    verify,
)

# Made by minisign 0.11: `minisign -G -W`, `echo hi > m`, `minisign -S -m m`.
TOOL_PUBLIC = "untrusted comment: minisign public key C69FC030455E0751\nRWRRB15FMMCfxsa+4l5CU7dAUauXdtCUNicN0A2YAshnWhSaHuRvatxB\n"
TOOL_SECRET = (
    "untrusted comment: minisign encrypted secret key\n"
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAUQdeRTDAn8bD08GWDGGcWDmdsvqoUlg8DU79hsKQoHo/2NB2JHP5JMa+"
    "4l5CU7dAUauXdtCUNicN0A2YAshnWhSaHuRvatxBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
)
TOOL_SIGNATURE = (
    "untrusted comment: signature from minisign secret key\n"
    "RURRB15FMMCfxh1gUJo+CVN8ys+DuALBzXIC5HyHESD7sb/TmwdHD0OfKEzSj2YEHmtjUFrw/MS/jljS4YRFANVqQPV3KSDMmQY=\n"
    "trusted comment: timestamp:1795275892\tfile:m\thashed\n"
    "CxyQpDcIE9VLFNeHjBFNfUPt9nHcFlliXEOY3s+CmJlIvmYDK8ecpwUz/0E+5g4jRnxgeLHQaJdb1HbT1HIPBw==\n"
)


def test_what_minisign_wrote_is_read():
    public, secret = read_public_key(TOOL_PUBLIC, "tool"), read_secret_key(TOOL_SECRET)
    assert public.hex_id == "C69FC030455E0751"
    assert (secret.public.key_id, secret.public.raw) == (public.key_id, public.raw)
    assert verify(b"hi\n", read_signature(TOOL_SIGNATURE), [public]) == public
    assert public.file == TOOL_PUBLIC
    assert secret_key_file(secret) == TOOL_SECRET
    assert read_public_key(public.text) == read_public_key(TOOL_PUBLIC)  # the line alone, as `minisign -P` has it


def test_a_signature_holds_for_these_bytes_this_comment_and_this_key():
    signature = sign(b"data", KEY, "for the robot")
    assert read_signature(signature.file) == signature
    assert verify(b"data", signature, [OTHER_KEY.public, KEY.public]) == KEY.public
    assert verify(b"data", signature, [OTHER_KEY.public]) is None
    assert sign(b"data", KEY, "for the robot") == signature
    with pytest.raises(SigningError, match="has been changed"):
        verify(b"dato", signature, [KEY.public])
    with pytest.raises(SigningError, match="has been changed"):
        verify(b"data", read_signature(signature.file.replace("for the robot", "for any robot")), [KEY.public])


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (lambda text: text[:-1], "not a minisign signature"),
        (lambda text: text + "\n", "not a minisign signature"),
        (lambda text: text.replace("untrusted", "trusted"), "not a minisign signature"),
        (lambda text: text.replace("for the", "for\x1bthe"), "cannot be printed"),
        (lambda text: text.replace("=", "", 1), "not base64"),
        (lambda text: text.replace("\nR", "\n?", 1), "not base64"),
        (lambda text: text.replace("\nRURR", "\nRUXR").replace("\nRUQ", "\nRUU"), "unknown algorithm"),
    ],
)
def test_a_damaged_signature_says_what_is_wrong(change, because):
    with pytest.raises(SigningError, match=because):
        read_signature(change(sign(b"data", KEY, "for the robot").file))


def test_a_legacy_signature_is_refused_by_name():
    lines = sign(b"data", KEY, "x").file.split("\n")
    raw = base64.b64decode(lines[1])
    lines[1] = base64.b64encode(b"Ed" + raw[2:]).decode()
    with pytest.raises(SigningError, match="legacy"):
        read_signature("\n".join(lines))


def test_base64_that_means_the_same_but_is_written_otherwise_is_refused():
    """The last character of 64 bytes holds four bits that count for nothing."""
    text = sign(b"data", KEY, "x").file
    last = text[-4]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = alphabet[alphabet.index(last) ^ 1]
    assert base64.b64decode(f"AA{last}=") == base64.b64decode(f"AA{other}=")
    with pytest.raises(SigningError, match="damaged"):
        read_signature(text[:-4] + other + text[-3:])


def test_a_damaged_key_is_refused():
    with pytest.raises(SigningError, match="expected 42 bytes"):
        read_public_key("RWRRB15FMMCf")
    with pytest.raises(SigningError, match="not a minisign public key"):
        read_public_key(TOOL_SECRET + TOOL_PUBLIC)
    middle = len(TOOL_SECRET) - 90
    with pytest.raises(SigningError, match="halves do not belong together"):
        read_secret_key(TOOL_SECRET[:middle] + ("A" if TOOL_SECRET[middle] != "A" else "B") + TOOL_SECRET[middle + 1 :])


def test_a_secret_is_not_printed():
    assert KEY.seed.hex() not in repr(KEY)
    assert repr(KEY.seed) not in repr(KEY)


def test_costs_are_those_of_libsodium():
    """Worked by hand from pickparams: minisign's own (1 GB), ours (128 MB), and a low number of operations."""
    assert scrypt_cost(1 << 25, 1 << 30) == (1 << 20, 1)
    assert scrypt_cost(1 << 22, 1 << 27) == (1 << 17, 1)
    assert scrypt_cost(32768, 1 << 30) == (1 << 10, 1)
    assert scrypt_cost(1 << 25, 1 << 24) == (1 << 14, 64)


@pytest.mark.slow
def test_a_key_with_a_passphrase_opens_with_it_alone():
    text = secret_key_file(KEY, "correct horse")
    assert KEY.seed not in base64.b64decode(text.split("\n")[1])
    assert read_secret_key(text, "correct horse") == KEY
    with pytest.raises(SigningError, match="wrong passphrase"):
        read_secret_key(text, "wrong horse")
    with pytest.raises(SigningError, match="passphrase is needed"):
        read_secret_key(text)


def test_a_key_that_asks_for_too_much_memory_is_refused():
    data = bytearray(base64.b64decode(TOOL_SECRET.split("\n")[1]))
    data[2:4], data[38:46], data[46:54] = b"Sc", (1 << 40).to_bytes(8, "little"), (1 << 40).to_bytes(8, "little")
    with pytest.raises(SigningError, match="at most 1024 MB"):
        read_secret_key(f"untrusted comment: x\n{base64.b64encode(data).decode()}\n", "x")


# ---- the folder


def test_a_new_key_is_trusted_and_its_secret_is_its_owners(tmp_path):
    key = new_key(tmp_path, "lab")
    path = tmp_path / "secret" / "lab.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert trusted_keys(tmp_path) == (key,)
    assert secret_names(tmp_path) == ("lab",)
    assert secret_key(tmp_path, "lab").public.raw == key.raw
    with pytest.raises(KeyringError, match="not overwritten"):
        new_key(tmp_path, "lab")


def test_a_secret_that_others_can_read_is_not_used(tmp_path):
    new_key(tmp_path, "lab")
    (tmp_path / "secret" / "lab.key").chmod(0o640)
    with pytest.raises(KeyringError, match="mode 0640.*chmod 600") as found:
        secret_key(tmp_path, "lab")
    assert found.value.refused


def test_trust_is_given_once_and_taken_back(tmp_path):
    first = trust(tmp_path, read_public_key(TOOL_PUBLIC, "tool"))
    with pytest.raises(KeyringError, match="is trusted already, as 'tool'"):
        trust(tmp_path, read_public_key(TOOL_PUBLIC, "again"))
    with pytest.raises(KeyringError, match="a key named 'tool' is trusted already"):
        trust(tmp_path, read_public_key(KEY.public.file, "tool"))
    assert remove(tmp_path, "tool") == first
    assert trusted_keys(tmp_path) == ()
    with pytest.raises(KeyringError, match="no key named 'tool'"):
        remove(tmp_path, "tool")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(KeyringError, match="a key's name is"):
        new_key(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_trusted_key_is_an_error_and_not_overlooked(tmp_path):
    new_key(tmp_path, "lab")
    (tmp_path / "trusted" / "bad.pub").write_text("garbage")
    with pytest.raises(KeyringError, match=r"bad\.pub: the public key is not base64"):
        trusted_keys(tmp_path)


def test_the_folder_is_where_the_environment_says(tmp_path):
    assert key_folder({"EDGE_DSAC_KEYS": "/k"}).as_posix() == "/k"
    assert key_folder({"XDG_CONFIG_HOME": "/c"}).as_posix() == "/c/edge_dsac/keys"
    assert key_folder({}).parts[-3:] == (".config", "edge_dsac", "keys")


# ---- the tool itself


def minisign(*words, cwd, given=""):
    if shutil.which("minisign") is None:
        pytest.skip("minisign is not installed: apt-get install minisign")
    return subprocess.run(["minisign", *words], cwd=cwd, capture_output=True, text=True, check=False, input=given)


@pytest.mark.slow
def test_minisign_verifies_what_unzip_takes_out_of_a_bundle(tmp_path):
    from zipfile import ZipFile

    with ZipFile(write_bundle(tmp_path)) as bundle:
        bundle.extractall(tmp_path, ["manifest.json", "manifest.json.minisig"])
    done = minisign("-Vm", "manifest.json", "-P", KEY.public.text, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Trusted comment: balance_bot-0 version 3 for balance_bot" in done.stdout
    (tmp_path / "k.pub").write_text(KEY.public.file)
    assert minisign("-Vm", "manifest.json", "-p", "k.pub", cwd=tmp_path).returncode == 0
    assert minisign("-Vm", "manifest.json", "-P", OTHER_KEY.public.text, cwd=tmp_path).returncode != 0
    with (tmp_path / "manifest.json").open("a") as file:
        file.write(" ")
    assert minisign("-Vm", "manifest.json", "-p", "k.pub", cwd=tmp_path).returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_minisign_signs_with_our_secret_key(tmp_path, passphrase):
    (tmp_path / "k.key").write_text(secret_key_file(KEY, passphrase))
    (tmp_path / "m").write_text("hi\n")
    done = minisign("-Sm", "m", "-s", "k.key", cwd=tmp_path, given=f"{passphrase}\n")
    assert done.returncode == 0, done.stderr
    signature = read_signature((tmp_path / "m.minisig").read_text())
    assert verify(b"hi\n", signature, [KEY.public]) == KEY.public


@pytest.mark.slow
def test_a_key_pair_that_minisign_makes_signs_here(tmp_path):
    assert minisign("-GW", "-p", "k.pub", "-s", "k.key", cwd=tmp_path).returncode == 0
    secret = read_secret_key((tmp_path / "k.key").read_text())
    public = read_public_key((tmp_path / "k.pub").read_text())
    (tmp_path / "m").write_text("hi\n")
    (tmp_path / "m.minisig").write_text(sign(b"hi\n", secret, "made here").file)
    assert minisign("-Vm", "m", "-P", public.text, cwd=tmp_path).returncode == 0


def test_keys_are_different_each_time(tmp_path):
    assert new_key(tmp_path, "a").raw != new_key(tmp_path, "b").raw
    assert make_secret_key(bytes(40)).public.hex_id == "0" * 16
