"""`NAME.policy`, the one signed file a robot needs: made from files, and read without trusting a byte of it.

Read in this order, each step refusing by name: the container (names, sizes, layout), the signature over manifest.json, the
manifest, the hashes of all files, the weights, the golden vectors, and what is said twice. Knows no engine. Rule that must stay
true: nothing inside is parsed before the signature over it is known to be good, or the caller has said that it need not be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_dsac.bundle.actor import Actor, ActorError, check_actor
from edge_dsac.bundle.arrays import ArraysError, read_arrays
from edge_dsac.bundle.container import ACTOR, GOLDEN, GUIDE, LIMITS, MANIFEST, SIGNATURE, TOTAL_LIMIT, lay_out, take_apart
from edge_dsac.bundle.golden import Golden, Reference, read_golden
from edge_dsac.bundle.guide import Guide, GuidedActor, read_guide
from edge_dsac.bundle.manifest import BundleError, Manifest, Precision, check_manifest, facts_of, read_manifest, spec_of
from edge_dsac.bundle.signing import PublicKey, SecretKey, SigningError, read_signature, sign, verify
from edge_dsac.spec.robot import RobotSpec, differing


@dataclass(frozen=True, slots=True)
class Running:
    """What drives, as far as its successors and candidates must know it."""

    identity: int
    version: int
    sha256: str  # of its manifest
    parent: str | None  # of the manifest that it was tuned from, which may always take its place again


@dataclass(frozen=True, slots=True)
class Bundle:
    manifest: Manifest
    files: Mapping[str, bytes]  # all of them, by name
    identity: int  # first 8 bytes of the SHA-256 of manifest.json: names it in every logged step
    signer: str | None  # the name of the trusted key; None only where the caller allowed it
    key_id: str  # of the key that signed, trusted or not; empty if it is unsigned
    trusted_comment: str
    spec: RobotSpec  # the robot file inside
    actor: Actor  # `identity` is the bundle's, so that an engine made from it is named rightly in the log
    golden: Golden
    guide: Guide | None = None  # of a critic-guided policy: `actor` alone is not what drives (engines.numpy_engine)

    @property
    def reference(self) -> Reference:
        """What drives, in float64."""
        return GuidedActor(self.actor, self.guide) if self.guide else self.actor

    @property
    def precision(self) -> Precision:
        return self.manifest.precision

    @property
    def running(self) -> Running:
        """What is said of it once it drives."""
        return Running(self.identity, self.manifest.version, self.manifest.sha256, self.manifest.parent)

    @property
    def signature(self) -> str:
        """For every status line."""
        if self.signer is not None:
            return f"signed by {self.signer}" + (f" ({self.key_id})" if self.signer != self.key_id else "")
        return f"NOT TRUSTED: signed by the unknown key {self.key_id}" if self.key_id else "NOT SIGNED"


def make_bundle(manifest: Manifest, files: Mapping[str, bytes], key: SecretKey | None = None) -> bytes:
    """The same input gives the same bytes, signature included. What could not be read back raises."""
    if SIGNATURE in files or MANIFEST in files:
        raise BundleError(f"{MANIFEST} and its signature are made here, not given")
    check_hashes(manifest, files)
    text = manifest.text.encode()
    whole = {**files, MANIFEST: text}
    if key is not None:
        comment = f"{manifest.name} version {manifest.version} for {manifest.robot.model}"
        whole[SIGNATURE] = sign(text, key, comment).file.encode()
    data = lay_out(whole)
    read_bundle(data, () if key is None else (key.public,), allow_unsigned=key is None)
    return data


def signed_again(bundle: Bundle, key: SecretKey) -> bytes:
    """The same policy under another signature: manifest and files byte for byte, so its identity and its line of parents stay."""
    return make_bundle(bundle.manifest, {name: data for name, data in bundle.files.items() if name not in (MANIFEST, SIGNATURE)}, key)


def read_bundle(source: bytes | str | Path, keys: Iterable[PublicKey], *, allow_unsigned: bool = False) -> Bundle:
    """`allow_unsigned` also takes one signed by a key not in `keys`; a wrong signature by a key in `keys` is never taken."""
    if isinstance(source, bytes):
        return opened(source, keys, allow_unsigned)
    try:
        with Path(source).open("rb") as file:
            data = file.read(TOTAL_LIMIT + 1)
    except OSError as error:
        raise BundleError(f"{source}: cannot be read: {error}") from None
    try:
        return opened(data, keys, allow_unsigned)
    except BundleError as error:
        raise BundleError(f"{source}: {error}") from None


def opened(data: bytes, keys: Iterable[PublicKey], allow_unsigned: bool) -> Bundle:
    files = take_apart(data)
    signer, key_id, comment = check_signature(files, keys, allow_unsigned)
    manifest = read_manifest(files[MANIFEST])
    check_hashes(manifest, {name: data for name, data in files.items() if name not in (MANIFEST, SIGNATURE)})
    spec = spec_of(manifest)
    try:
        identity = short_hash(files[ACTOR])
        actor = check_actor(read_arrays(files[ACTOR], ACTOR, LIMITS[ACTOR]), ACTOR, identity, spec)
        check_manifest(manifest, actor)
        guide = read_guide(read_arrays(files[GUIDE], GUIDE, LIMITS[GUIDE]), actor) if GUIDE in files else None
        reference = GuidedActor(actor, guide) if guide else None
        golden = read_golden(read_arrays(files[GOLDEN], GOLDEN, LIMITS[GOLDEN]), actor, reference)
    except (ActorError, ArraysError) as error:
        raise BundleError(str(error)) from None
    whole = short_hash(files[MANIFEST])
    return Bundle(manifest, files, whole, signer, key_id, comment, spec, replace(actor, identity=whole), golden, guide)


def check_signature(files: Mapping[str, bytes], keys: Iterable[PublicKey], allow_unsigned: bool) -> tuple[str | None, str, str]:
    """(name of the trusted key, id of the key, trusted comment)."""
    if SIGNATURE not in files:
        if allow_unsigned:
            return None, "", ""
        raise BundleError("is not signed; sign it, or say --allow-unsigned")
    known = tuple(keys)
    try:
        signature = read_signature(files[SIGNATURE].decode("utf-8"))
        signer = verify(files[MANIFEST], signature, known)
    except (SigningError, UnicodeDecodeError) as error:
        raise BundleError(f"{SIGNATURE}: {error}") from None
    if signer is not None:
        return signer.name or signer.hex_id, signer.hex_id, signature.trusted_comment
    if allow_unsigned:
        return None, signature.hex_id, ""  # the comment of a signature that was not checked is anybody's word
    names = ", ".join(f"{key.name} ({key.hex_id})" for key in known) or "none"
    raise BundleError(f"is signed by key {signature.hex_id}, which is not trusted here (trusted: {names}); edge-dsac keys trust FILE.pub")


def check_hashes(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    absent, extra = sorted(set(manifest.files) - set(files)), sorted(set(files) - set(manifest.files))
    if absent or extra:
        raise BundleError(f"the files are not those of the manifest: missing {absent}, not listed {extra}")
    for name, data in files.items():
        if facts_of(data) != manifest.files[name]:
            raise BundleError(f"{name} is not the file that was signed: its SHA-256 or its size differs from the manifest's")


def short_hash(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


# ---- before it may drive


def check_for_robot(bundle: Bundle, spec: RobotSpec) -> None:
    """Refuses a bundle that was made for another robot, or for this one before its file was changed; says what differs."""
    made_for = bundle.spec
    policy = differing(made_for.policy_facts, spec.policy_facts)
    board = [row for row in differing(made_for.firmware_facts, spec.firmware_facts) if row not in policy]
    if not policy and not board:
        return
    name = bundle.manifest.name
    if policy:
        head = f"{name} was built for {made_for.model} policy {made_for.policy_fingerprint}, {spec.model} has {spec.policy_fingerprint}"
        advice = (
            "what the policy was trained against has changed: train it again for this robot file, or go back to the one it was made for"
        )
    else:
        head = (
            f"{name} was built for {made_for.model} firmware {made_for.firmware_fingerprint}, {spec.model} has {spec.firmware_fingerprint}"
        )
        advice = "the policy itself still fits: compile it again for this robot file"
    lines = [f"  {key}: bundle {theirs}, robot {ours}" for key, theirs, ours in [*policy, *board]]
    raise BundleError("\n".join([f"{head}; {advice}", *lines]))


def check_version(bundle: Bundle, running_version: int | None, may_return: Collection[str] = ()) -> None:
    """Anti-downgrade: the same version again is fine, an older one is not. None: nothing has run here yet.

    `may_return`: SHA-256 of manifests that may take the place of a newer version: what runs was tuned from them.
    """
    version = bundle.manifest.version
    if running_version is not None and version < running_version and bundle.manifest.sha256 not in may_return:
        raise BundleError(
            f"{bundle.manifest.name} is version {version}, the robot runs {running_version}, which was not tuned from it; "
            "compile it again with a higher version"
        )
