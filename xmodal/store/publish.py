"""Put a finished build in the place of the store; may be interrupted anywhere and done again."""

import os
import shutil
from pathlib import Path

from xmodal.store.files import named_errors, sync_folder
from xmodal.store.layout import BUILD_FOLDER, MANIFEST_FILE
from xmodal.store.manifest import Manifest


def finish_publishing(store: Path) -> None:
    """Complete what a killed `publish` began, if there is such a thing."""
    for manifest in sorted((store / BUILD_FOLDER).glob(f"*/{MANIFEST_FILE}")):
        publish(store, manifest.parent)


def publish(store: Path, build: Path) -> None:
    """Move the files of `build`, which has a manifest, into `store`, and remove all that the manifest does not list.

    The old manifest goes first and the new one comes last: in between the store counts as unsealed, never as mixed.

    Raises:
        StoreFullError: no space for a folder; run again.
        StoreError: a file cannot be moved.
    """
    with named_errors(store):
        source = build / MANIFEST_FILE
        manifest = Manifest.from_bytes(source.read_bytes(), str(source))
        (store / MANIFEST_FILE).unlink(missing_ok=True)
        sync_folder(store)
        names = {name for name, _ in manifest.all_files()}
        for name in sorted(names):
            if (build / name).exists():
                (store / name).parent.mkdir(parents=True, exist_ok=True)
                (build / name).replace(store / name)
        _remove_others(store, names)
        source.replace(store / MANIFEST_FILE)
        sync_folder(store)
    remove_builds(store)


def remove_builds(store: Path) -> None:
    """Remove every build of the store, finished or not."""
    with named_errors(store):
        if (store / BUILD_FOLDER).exists():
            shutil.rmtree(store / BUILD_FOLDER)


def _remove_others(store: Path, names: set[str]) -> None:
    for folder, folders, files in os.walk(store, topdown=False):
        here = Path(folder)
        relative = here.relative_to(store)
        if relative.parts[:1] == (BUILD_FOLDER,):
            continue
        for name in files:
            if (relative / name).as_posix() not in names:
                (here / name).unlink()
        for name in folders:
            if name != BUILD_FOLDER and not any((here / name).iterdir()):
                (here / name).rmdir()
        if not relative.parts or files:
            sync_folder(here)
