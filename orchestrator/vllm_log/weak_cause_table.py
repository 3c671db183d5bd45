"""Lines that tell why a start-up failed when nothing better is in its log: the end of the table of causes."""

from orchestrator.vllm_log.cause_table import RAISED, Row

_IMAGE = "use an image that holds what the line names, in the version that this vLLM needs"

WEAK_TABLE: tuple[Row, ...] = (
    Row("host.oom", ("died unexpectedly (exit code: -9)", "worker died (-9)"), weak=True),
    Row(
        "hang",
        (
            "Timed out waiting for engine core processes to start",
            "RPC call to {w} timed out",
            "Did not receive response from front-end process within",
        ),
        weak=True,
    ),
    Row(
        "engine.died",
        ("ddress already in use",),
        weak=True,
        remedy="another server listens there: stop it, or use another --port",
    ),
    Row("engine.died", ("No space left on device",), weak=True, remedy="give the pod more disk, or a larger /dev/shm"),
    Row("engine.died", ("Fatal Python error: ", "Segfault encountered"), weak=True),
    Row("config.unsupported", ("NotImplementedError: ",), weak=True, after=r"(?!\s*$)"),
    Row(
        "config.argument",
        ("Valid options are", "Expected one of [", "chose from {", "choose from", "cannot be used with --"),
        weak=True,
        before=RAISED,
    ),
    Row(
        "config.unsupported",
        ("not supported", "not support ", "only supports ", "only supported ", "does not support"),
        weak=True,
        before=r"(?!TypeError|OSError)" + RAISED,
    ),
    Row("config.unsupported", ("are supported",), weak=True, before=RAISED + r"\b[Oo]nly .{0,100}?"),
    Row(
        "config.unsupported",
        ("ImportError: ", "ModuleNotFoundError: "),
        weak=True,
        before="^",
        after=r"(?!sys\.meta_path)",
        remedy=_IMAGE,
    ),
    Row("config.unsupported", ("Failed to find C compiler", "'ninja'"), weak=True, before=RAISED, remedy=_IMAGE),
    Row(
        "config.unsupported",
        ("Value error, ",),
        weak=True,
        before=r"^\s*",
        after=r"(?:(?!\[type=).){0,2000}?(?:quantiz|checkpoint|rchitectur)",  # not in the input that pydantic shows
    ),
    Row("unknown", ("CUDA error: ", "HIP error: "), weak=True, before=r"^\s*"),
    Row("config.argument", ("Value error, ",), weak=True, after=r"(?!\{)", before=r"^\s*"),
    Row("config.argument", ("Input should be", "Unexpected keyword argument"), weak=True, after=r".{0,300}?\[type="),
    Row("interrupted", ("KeyboardInterrupt", "SIGTERM", "Received signal 2", "Received signal 15"), weak=True),
    Row("interrupted", ("terminated by signal",), weak=True),
)
