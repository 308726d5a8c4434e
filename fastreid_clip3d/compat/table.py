"""Everything of fast-reid, torch and Python that this package replaces."""

from __future__ import annotations

from fastreid_clip3d.compat import (
    backbones,
    classification,
    distributed,
    evaluation,
    events,
    imports,
    launch,
    loader,
    metrics,
    named_datasets,
    optimizer,
    pixels,
    tracing,
)
from fastreid_clip3d.compat.replacement import Replacement, constant

STUDENT_BUILDER = Replacement(
    names=("fastreid.modeling.meta_arch.baseline:build_backbone",),
    needed=backbones.accepts_half_loaded_students,
    make=lambda original, build: build,
    why="fast-reid only logs which weights a pretrained file lacks, and trains the rest of the network from noise.",
    until="fast-reid's build_backbone raises when a pretrained file does not fill the network.",
    when="in a block",
)
LOADED_NAMES = Replacement(
    names=("torch.nn:Module.load_state_dict",),
    needed=backbones.drops_what_is_missing,
    make=backbones.recording,
    why="fast-reid's builders drop the list of missing names, and torch has no hook for the loads of all modules.",
    until="fast-reid's builders return or raise what load_state_dict returns.",
    when="in a block",
)
OPEN_BATCH_SIZE = Replacement(
    names=("fastreid.modeling.backbones.shufflenet:ShuffleV2Block.channel_shuffle",),
    needed=tracing.fixes_the_batch_size,
    make=constant(tracing.even_and_odd_channels),
    why="ShuffleNetV2 reads its batch size from x.data, which tracing writes down as a number: an exported file would "
    "take batches of one size only. Training and inference keep fast-reid's own function.",
    until="fast-reid reads the size from x, or exporters without tracing replace torch.jit.trace here.",
    when="in a block",
)

TABLE = (
    Replacement(
        names=("torch._six",),
        needed=imports.is_absent,
        make=imports.six_module,
        why="fast-reid imports string_classes from torch._six, which torch 2 removed.",
        until="fast-reid stops importing torch._six.",
        when="while fast-reid is imported",
    ),
    Replacement(
        names=("collections:Mapping",),
        needed=imports.is_absent,
        make=imports.mapping_class,
        why="fast-reid imports Mapping from collections; since Python 3.10 it stands in collections.abc only.",
        until="fast-reid imports it from collections.abc.",
        when="while fast-reid is imported",
    ),
    Replacement(
        names=("getpass:getuser",),
        needed=imports.fails_without_a_name,
        make=imports.numbered_user,
        why="torchvision imports torch's compiler, which asks for the user's name to name its cache folder. Under a "
        "user id without an entry in /etc/passwd (containers) that fails, and nothing could be imported.",
        until="torch takes the number where there is no name.",
        when="while fast-reid is imported",
    ),
    Replacement(
        names=("faiss",),
        needed=imports.is_absent,
        make=imports.missing_faiss,
        why="fast-reid's evaluation imports faiss, which only re-ranking and ROC curves use; a machine without it "
        "could not even train.",
        until="fast-reid imports faiss where it searches.",
        when="while fast-reid is imported",
    ),
    Replacement(
        names=("fastreid.data.data_utils:DataLoaderX", "fastreid.data.build:DataLoaderX"),
        needed=loader.opens_a_stream,
        make=constant(loader.DeviceLoader),
        why="fast-reid's loader opens a CUDA stream whatever MODEL.DEVICE says, and after an error in a worker "
        "training waits for ever.",
        until="fast-reid's loader takes a device, and an error of its thread reaches the caller.",
    ),
    *(
        Replacement(
            names=(f"fastreid.data.build:{name}", f"fastreid.data:{name}", f"fastreid.engine.defaults:{name}"),
            needed=named_datasets.looks_into_the_registry_only,
            make=named_datasets.found_by_name(which),
            why="fast-reid looks datasets up in its registry, which does not know DATASETS.CSV; an unknown name is a "
            "KeyError, and a batch that the training set cannot fill is an endless loop or a ZeroDivisionError.",
            until="fast-reid's loaders ask a function for a config's datasets, and its samplers check the batch.",
        )
        for name, which in (("build_reid_train_loader", "train"), ("build_reid_test_loader", "test"))
    ),
    Replacement(
        names=("fastreid.data.transforms.functional:to_tensor", "fastreid.data.transforms.transforms:to_tensor"),
        needed=pixels.tensor_needs_old_libraries,
        make=constant(pixels.to_tensor),
        why="fast-reid's function uses torch's deprecated typed storages, and an np.array(copy=False) that NumPy 2 "
        "refuses.",
        until="fast-reid's function runs without torch.ByteStorage and with NumPy 2.",
    ),
    Replacement(
        names=("fastreid.data.data_utils:read_image", "fastreid.data.common:read_image"),
        needed=pixels.error_lacks_the_file,
        make=constant(pixels.read_image),
        why="fast-reid's error for a truncated image does not name the file, and pictures with transparency or a "
        "palette reach the network with another number of channels than 3.",
        until="fast-reid's function names the file and returns RGB for every kind of picture.",
    ),
    Replacement(
        names=(
            "fastreid.modeling.backbones.regnet.effnet:effnet_cfg",
            "fastreid.modeling.backbones.regnet.regnet:regnet_cfg",
        ),
        needed=backbones.reads_below_the_working_directory,
        make=backbones.ConfigFoundAnywhere,
        why="RegNet and EfficientNet open their packaged yaml files by a path relative to the working directory.",
        until="fast-reid opens these files relative to its package.",
    ),
    Replacement(
        names=(
            "fastreid.solver.build:build_optimizer",
            "fastreid.solver:build_optimizer",
            "fastreid.engine.defaults:build_optimizer",
        ),
        needed=optimizer.removes_gradients,
        make=optimizer.with_gradients_kept,
        why="fast-reid's optimiser works on one flat buffer, whose gradient the parameters' gradients are views of. "
        "Since torch 2 zero_grad() sets gradients to None: the optimiser then finds none on the buffer, and no weight "
        "changes.",
        until="fast-reid's trainer calls zero_grad(set_to_none=False), or its flat buffer goes.",
    ),
    Replacement(
        names=(
            "fastreid.solver.build:build_optimizer",
            "fastreid.solver:build_optimizer",
            "fastreid.engine.defaults:build_optimizer",
        ),
        needed=optimizer.steps_unfused,
        make=optimizer.fused,
        why="fast-reid does not ask for torch's fused step, which reads every weight once, not once per operation.",
        until="fast-reid passes fused=True, or torch makes it the default.",
    ),
    Replacement(
        names=(
            "fastreid.utils.params:ContiguousParams",
            "fastreid.solver.build:ContiguousParams",
            "fastreid.engine.train_loop:ContiguousParams",
        ),
        needed=optimizer.leaves_parameters_unaligned,
        make=optimizer.aligned,
        why="In fast-reid's flat buffer every weight behind a parameter of one number, such as the p of GeM pooling, "
        "begins at an address that CUDA cannot read four numbers from. SBS then ends in its first steps with "
        "`misaligned address`.",
        until="fast-reid aligns the parameters, or its flat buffer goes.",
    ),
    *(
        Replacement(
            names=tuple(
                f"fastreid.modeling.{module}:{name}"
                for module in ("losses.cross_entroy_loss", "losses", "meta_arch.baseline", "meta_arch.mgn")
            ),
            needed=needed,
            make=constant(replacement),
            why=f"fast-reid's {name} asks the device for a value in every step, so that the host waits for the device, "
            "and the device then for the host.",
            until=f"fast-reid's {name} computes on the device alone.",
        )
        for name, needed, replacement in (
            ("cross_entropy_loss", classification.cross_entropy_asks, classification.cross_entropy_loss),
            ("log_accuracy", classification.asks_the_device, classification.log_accuracy),
        )
    ),
    Replacement(
        names=("fastreid.engine.train_loop:SimpleTrainer._write_metrics",),
        needed=metrics.uses_a_side_stream,
        make=constant(metrics.write_metrics),
        why="fast-reid copies the losses on a new CUDA stream that waits for nothing: it may read them before they are "
        "computed, log wrong values and stop the run because of a NaN that is none. It also waits once per loss.",
        until="fast-reid copies the losses on the stream that computes them.",
    ),
    Replacement(
        names=("fastreid.utils.events:CommonMetricPrinter.write",),
        needed=events.divides_by_zero,
        make=events.once_per_iteration,
        why="The last step of an epoch writes the log line twice, and the second line divides by 0 iterations.",
        until="fast-reid writes once per iteration.",
    ),
    Replacement(
        names=("fastreid.evaluation.reid_evaluation:ReidEvaluator._compile_dependencies",),
        needed=evaluation.compiles,
        make=constant(evaluation.skip_compilation),
        why="fast-reid compiles a Cython module when its evaluator is built, and ends the process when that fails.",
        until="fast-reid falls back to its Python evaluation when there is no compiler.",
    ),
    Replacement(
        names=("fastreid.evaluation.rank:eval_market1501",),
        needed=evaluation.fails_on_small_galleries,
        make=constant(evaluation.eval_market1501),
        why="Where a gallery is smaller than 50, fast-reid stacks rank lists of different lengths, which NumPy 2 "
        "refuses.",
        until="fast-reid pads its rank lists.",
    ),
    Replacement(
        names=("fastreid.engine.launch:_distributed_worker",),
        needed=launch.needs_cuda_or_sets_no_timeout,
        make=constant(launch.distributed_worker),
        why="fast-reid asserts CUDA, and sets no timeout: processes that wait while rank 0 scores a large test set are "
        "ended after 10 minutes (NCCL).",
        until="fast-reid uses gloo where there is no CUDA device, and takes a timeout.",
    ),
    Replacement(
        names=("fastreid.utils.comm:_get_global_gloo_group",),
        needed=launch.gloo_group_has_no_timeout,
        make=constant(launch.global_gloo_group),
        why="The group through which fast-reid gathers losses has gloo's timeout of 30 minutes, not that of the run.",
        until="fast-reid gives this group the timeout of the run.",
    ),
    Replacement(
        names=("fastreid.utils.comm:_serialize_to_tensor",),
        needed=distributed.needs_typed_storages,
        make=constant(distributed.serialize_to_tensor),
        why="fast-reid gathers objects through torch's deprecated typed storages.",
        until="fast-reid stops using torch.ByteStorage.",
    ),
    Replacement(
        names=("fastreid.engine.defaults:DistributedDataParallel",),
        needed=distributed.gives_device_ids_on_a_cpu,
        make=constant(distributed.distributed_data_parallel),
        why="fast-reid's trainer always gives device ids, which torch refuses for a model on a CPU; and a parameter "
        "that a step does not use stops the next step.",
        until="fast-reid's trainer leaves device ids out on a CPU, and sets static_graph or find_unused_parameters.",
    ),
    STUDENT_BUILDER,
    LOADED_NAMES,
    OPEN_BATCH_SIZE,
)
"""In the order in which :func:`fastreid_clip3d.compat.apply` walks it."""
