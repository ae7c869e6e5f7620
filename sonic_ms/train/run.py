"""`sonic-ms train CONFIG`: read the recipe's name and settings from YAML and run it."""

import importlib
import importlib.resources
from pathlib import Path

from sonic_ms.errors import UsageError
from sonic_ms.files.config import from_dict, read_yaml
from sonic_ms.runtime.ms import start
from sonic_ms.train.loop.distributed import started_in_group

RECIPES = {  # name in the file -> (module, dataclass of its settings)
    "base_distill": ("sonic_ms.train.base.distill", "BaseDistillConfig"),
    "base_finetune": ("sonic_ms.train.base.finetune", "BaseFinetuneConfig"),
    "base_sparse": ("sonic_ms.small.base", "BaseSparseConfig"),
    "edge_audio": ("sonic_ms.train.edge.audio", "EdgeAudioConfig"),
    "edge_distill": ("sonic_ms.train.edge.distill", "EdgeDistillConfig"),
    "edge_renderer": ("sonic_ms.train.edge.renderer", "EdgeRendererConfig"),
    "small_painter": ("sonic_ms.small.painter", "SmallPainterConfig"),
    "small_search": ("sonic_ms.small.supernet", "SmallSearchConfig"),
    "small_ticket": ("sonic_ms.small.ticket", "SmallTicketConfig"),
    "syncnet": ("sonic_ms.train.syncnet.training", "SyncNetTraining"),
}
FOR_GROUPS = ("base_finetune", "base_sparse")  # the others train in one process


def find_recipe(name):
    """Path of a YAML file, or of the recipe of that name that comes with the package."""
    if Path(name).suffix in (".yaml", ".yml") or Path(name).exists():
        return Path(name)
    shipped = Path(str(importlib.resources.files("sonic_ms.configs")))
    path = shipped / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in shipped.glob("*.yaml") if "recipe" in read_yaml(one)))
        raise UsageError(f"recipe {name!r} is not known; expected a YAML file or one of {known}")
    return path


def train(config_path, out=None, resume=False):
    """Run the recipe of a YAML file; results go to `out` (default runs/NAME). Returns the last row of the log."""
    name, module, config = read_recipe(config_path)
    return module.run(config, Path(out or Path("runs") / name), resume)


def memory_table(config_path):
    """Text: predicted memory of a base_finetune recipe, by what is trained, batch, devices and recompute."""
    from sonic_ms.train.base.memory import table

    name, _, config = read_recipe(config_path)
    if name != "base_finetune":
        raise UsageError(f"{config_path}: the memory of recipe {name!r} is not predicted, only that of base_finetune")
    return table(config)


def read_recipe(config_path):
    """(name, module, config dataclass) of a YAML file, or of a recipe that comes with the package."""
    config_path = find_recipe(config_path)
    settings = read_yaml(config_path)
    name = settings.pop("recipe", None)
    if name not in RECIPES:
        raise UsageError(f"{config_path}: recipe is {name!r}; expected one of {', '.join(RECIPES)}")
    if started_in_group() and name not in FOR_GROUPS:
        raise UsageError(f"recipe {name} trains in one process; several are for {', '.join(FOR_GROUPS)}")
    module_name, class_name = RECIPES[name]
    start()
    module = importlib.import_module(module_name)
    return name, module, from_dict(getattr(module, class_name), settings, str(config_path))
