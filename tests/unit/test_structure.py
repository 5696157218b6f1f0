"""Rules of structure that are checked in the source itself: no state in modules, no patching, no changed arguments.

What a process shares lives in a `pipeline.session.Session`, which is opened once and passed down. A module may contain:

- constants: collections under a name in upper case that nothing in the project changes. "Changes" means an assignment
  to an item, `del`, an augmented assignment, or a call of a method that changes a list, set or dictionary, on that
  name, in whatever module;
- immutable values, compiled patterns, decoders, type variables, loggers and ContextVars;
- instances of the project's own classes, if no method except the constructor assigns to an attribute of `self`;
- caches of pure functions (`functools.cache`, `lru_cache`).

The same holds for the attributes of classes, except fields, whose defaults are copied for each instance. Exceptions are
listed with their reason in `_STATE`.

The rules are about names: they do not follow a collection that is passed to a function or bound to another name, except
where a loop or a plain assignment gives another name to an argument.
"""

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache

import pytest

from tests.source import PACKAGES, Module, imports, is_within, modules

_STATE = {
    "klaviyo_pg.postgres.server.embedded._one_thread": "pgserver, which starts servers, keeps them in a global dict",
}
"""Module-level state that cannot be avoided, and why."""
_COLLECTIONS = frozenset({"list", "dict", "set", "bytearray", "sorted", "fromkeys", "copy", "deepcopy"})
_MADE_TO_CHANGE = frozenset(
    {
        *("defaultdict", "deque", "Counter", "OrderedDict", "ChainMap", "array", "count", "cycle", "iter", "Random"),
        *("Lock", "RLock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "local", "Thread"),
        *("WeakSet", "WeakKeyDictionary", "WeakValueDictionary", "Queue", "SimpleQueue", "LifoQueue", "PriorityQueue"),
        *("StringIO", "BytesIO", "ThreadPoolExecutor", "ProcessPoolExecutor", "Session", "create_engine", "connect"),
    }
)
_CHANGING = frozenset(
    {
        *("append", "appendleft", "extend", "extendleft", "insert", "remove", "pop", "popleft", "popitem", "clear"),
        *("add", "discard", "update", "setdefault", "sort", "reverse", "rotate", "move_to_end", "put", "put_nowait"),
        *("difference_update", "intersection_update", "symmetric_difference_update", "__setitem__", "__delitem__"),
        *("__setattr__", "__delattr__"),
    }
)
_CONSTRUCTORS = frozenset({"__init__", "__post_init__", "__new__"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


def called(node: ast.AST) -> str | None:
    """Return the last name of what a call calls: `b` for `a.b()` and for `b[int]()`."""
    if not isinstance(node, ast.Call):
        return None
    function = node.func.value if isinstance(node.func, ast.Subscript) else node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def is_collection(node: ast.expr) -> bool:
    """Return whether an expression makes a list, set or dictionary."""
    if isinstance(node, ast.BinOp):
        return is_collection(node.left) or is_collection(node.right)
    displays = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    return isinstance(node, displays) or called(node) in _COLLECTIONS


def root(node: ast.AST) -> str | None:
    """Return the name that a chain of attributes and items begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def targets(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what a statement assigns to or deletes."""
    if isinstance(node, ast.Assign | ast.Delete):
        found: Iterable[ast.expr] = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor):
        found = [node.target]
    else:
        found = []
    for target in found:
        yield from target.elts if isinstance(target, ast.Tuple | ast.List) else [target]


def changed(tree: ast.AST) -> Iterator[tuple[ast.expr, int]]:
    """Yield what a tree changes in place, with the line: by an item, an attribute, `del`, `+=` and methods."""
    for node in ast.walk(tree):
        for target in targets(node):
            if isinstance(target, ast.Attribute | ast.Subscript):
                yield target.value, node.lineno  # type: ignore[attr-defined]  # of a statement
            elif isinstance(node, ast.AugAssign):
                yield target, node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
            yield node.func.value, node.lineno


def bodies(module: Module) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Yield the body of a module and those of its classes without their fields, with their names."""
    yield module.name, module.tree.body
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            yield f"{module.name}.{node.name}", [each for each in node.body if not is_field(each, node)]


def is_field(node: ast.stmt, owner: ast.ClassDef) -> bool:
    """Return whether a statement declares a field whose default is copied: of a dataclass, a Struct or a model.

    A NamedTuple shares its defaults among all instances.
    """
    bases = [ast.unparse(base) for base in owner.bases]
    copies = bool(bases or owner.decorator_list) and "NamedTuple" not in bases
    return copies and isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation)


def bound(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a body binds to values, also within `if`, `try` and `with`."""
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from bound(each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            yield from ((target.id, node.value) for target in targets(node) if isinstance(target, ast.Name))


@cache
def constants() -> frozenset[str]:
    """Return the names of collections that modules and classes use as constants."""
    return frozenset(
        name
        for module in modules(*PACKAGES)
        for _, body in bodies(module)
        for name, value in bound(body)
        if is_collection(value) and name.isupper()
    )


@cache
def changing_classes() -> frozenset[str]:
    """Return the names of the project's classes whose methods assign to attributes of `self`."""
    return frozenset(
        node.name
        for module in modules(*PACKAGES)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and any(map(_changes_itself, node.body))
    )


def _changes_itself(method: ast.stmt) -> bool:
    if not isinstance(method, Function) or method.name in _CONSTRUCTORS:
        return False
    itself = next((argument.arg for argument in method.args.args), "")
    assigned = any(root(target) == itself for node in ast.walk(method) for target in targets(node))
    return assigned or any(root(each) == itself for each, _ in changed(method))


def state(module: Module) -> Iterator[str]:
    """Yield the names in a module and its classes that are bound to something that may change."""
    for place, body in bodies(module):
        for name, value in bound(body):
            is_constant = name.isupper() or name in ("__all__", "__slots__", "model_config")
            may_change = called(value) in _MADE_TO_CHANGE | changing_classes()
            if may_change or (is_collection(value) and not is_constant):
                yield f"{place}.{name}"


def each(package: str) -> Iterable[Module]:
    return modules(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_have_no_state(package: str) -> None:
    """See the docstring of this module for what they may contain."""
    assert [name for module in each(package) for name in state(module) if name not in _STATE] == []


def test_exceptions_are_still_needed() -> None:
    assert _STATE.keys() <= {name for module in modules(*PACKAGES) for name in state(module)}


@pytest.mark.parametrize("package", PACKAGES)
def test_constants_are_not_changed(package: str) -> None:
    """A collection with a name in upper case stays as its module defines it."""
    assert [
        f"{module.name}:{line} {ast.unparse(expression)}"
        for module in each(package)
        for expression, line in changed(module.tree)
        if _last_name(expression) in constants()
    ] == []


def _last_name(node: ast.expr) -> str | None:
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else root(node)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_assigns_to_a_global_name(package: str) -> None:
    nodes = ((module.name, node) for module in each(package) for node in ast.walk(module.tree))
    assert [name for name, node in nodes if isinstance(node, ast.Global)] == []


def shared_names(module: Module) -> set[str]:
    """Return the names of modules, classes and functions that a module imports or defines."""
    names = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return names | {node.name for node in module.tree.body if isinstance(node, ast.ClassDef | Function)}


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_patched(package: str) -> None:
    """No attribute of an imported module, class or function is assigned to, nor one of the project's own classes.

    The environment may be changed: that passes settings on to libraries and child processes.
    """
    patches = []
    for module in each(package):
        shared = shared_names(module)
        for node in ast.walk(module.tree):
            patched = [each for each in targets(node) if is_patch(each)]
            if called(node) in ("setattr", "delattr") and isinstance(node, ast.Call):
                patched += node.args[:1]
            patches += [f"{module.name}:{node.lineno}" for each in patched if root(each) in shared]  # type: ignore[attr-defined]
    assert patches == []


def is_patch(target: ast.expr) -> bool:
    return isinstance(target, ast.Attribute) and ast.unparse(target) != "os.environ"


def functions(module: Module) -> Iterator[Function]:
    """Yield the functions of a module, without those in classes and other functions."""
    return (node for node in module.tree.body if isinstance(node, Function))


def is_task(function: Function) -> bool:
    """Return whether a function is decorated with Prefect's `task`."""
    decorators = [each.func if isinstance(each, ast.Call) else each for each in function.decorator_list]
    return any(isinstance(each, ast.Name) and each.id == "task" for each in decorators)


def is_unit(function: Function) -> bool:
    """Return whether a function is a unit of the pipeline, whose first argument is a session."""
    first = next(iter(function.args.args), None)
    return first is not None and first.annotation is not None and ast.unparse(first.annotation) == "Session"


def arguments(function: Function) -> set[str]:
    """Return the names of a function's arguments, without that of the session, which is not a value."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return {each.arg for each in every if each.annotation is None or ast.unparse(each.annotation) != "Session"}


def aliases(function: Function, names: Collection[str]) -> set[str]:
    """Return the names, and other names that loops and assignments give to (a part of) the same values."""
    known = set(names)
    for node in ast.walk(function):
        if isinstance(node, ast.For | ast.comprehension) and root(node.iter) in known:
            known |= {each.id for each in ast.walk(node.target) if isinstance(each, ast.Name)}
        elif isinstance(node, ast.Assign) and root(node.value) in known:
            known |= {target.id for target in targets(node) if isinstance(target, ast.Name)}
    return known


def units() -> Mapping[str, Function]:
    """Return the tasks and the units of the pipeline, by name."""
    return {
        f"{module.name}.{function.name}": function
        for package, is_meant in (("tasks", is_task), ("pipeline", is_unit))
        for module in each(package)
        for function in functions(module)
        if is_meant(function)
    }


@pytest.mark.parametrize("name", sorted(units()))
def test_a_unit_does_not_change_its_arguments(name: str) -> None:
    """It takes values and returns a value, so that it can run in another thread or process, and be repeated."""
    function = units()[name]
    names = aliases(function, arguments(function))
    assert [f"line {line}" for expression, line in changed(function) if root(expression) in names] == []


def test_units_are_found() -> None:
    """The tasks that are more than a call of a unit, and the units."""
    assert {"tasks.units.prepare", "tasks.units.join"} <= units().keys()
    assert {"pipeline.read.read_chunks", "pipeline.backfill.reading.extract", "pipeline.runs.finish"} <= units().keys()


def test_every_module_of_the_pipeline_is_imported_by_tests_in_process() -> None:
    """Directly or through another module. Acceptance tests, which run processes, do not count."""
    known = {module.name: module for module in modules("pipeline", "tests")}
    waiting = {module.name for module in modules("tests/unit", "tests/integration")}
    imported: set[str] = set()
    while waiting:
        name = waiting.pop()
        new = {module for module in known if is_within(name, module)} - imported
        imported |= new
        waiting |= {each for module in new for each in imports(known[module].tree)}
    assert {module.name for module in modules("pipeline")} - imported == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("_cache = {}", ["m._cache"], id="a dictionary"),
        pytest.param("seen: set[str] = set()", ["m.seen"], id="an annotated set"),
        pytest.param("known = [1] + [2]", ["m.known"], id="a sum of lists"),
        pytest.param("NAMES = [1]", [], id="a constant"),
        pytest.param("LOCK = threading.Lock()", ["m.LOCK"], id="a lock, whatever its name"),
        pytest.param("_TURNS = defaultdict[str, Lock](Lock)", ["m._TURNS"], id="a subscripted call"),
        pytest.param("class A:\n    found = []", ["m.A.found"], id="an attribute of a class"),
        pytest.param("class A:\n    found: list = []", ["m.A.found"], id="an annotated attribute"),
        pytest.param("class A(NamedTuple):\n    found: list = []", ["m.A.found"], id="a shared default"),
        pytest.param("class A(Struct):\n    found: list = []", [], id="a default that is copied"),
        pytest.param("if True:\n    a = {}", ["m.a"], id="within a condition"),
        pytest.param("STOP = StopFlag()", ["m.STOP"], id="an object that changes"),
        pytest.param("_LIMIT, pattern = 1, re.compile('x')", [], id="immutable values"),
        pytest.param("def f():\n    a = []", [], id="a local variable"),
    ],
)
def test_state_is_recognized(source: str, expected: list[str]) -> None:
    assert list(state(Module("m", ast.parse(source)))) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("chunks.append(1)", ["chunks"], id="a method"),
        pytest.param("plan.chunks[0] = 1", ["plan"], id="an item"),
        pytest.param("run.state = 1", ["run"], id="an attribute"),
        pytest.param("del run.counts['a']", ["run"], id="a deletion"),
        pytest.param("chunks += [1]", ["chunks"], id="an augmented assignment"),
        pytest.param("a, run.b = 1, 2", ["run"], id="one of several targets"),
        pytest.param("for run.a in b: pass", ["run"], id="the target of a loop"),
        pytest.param("total = chunks + [run.a['b']]", [], id="only reading"),
    ],
)
def test_changes_are_recognized(source: str, expected: list[str]) -> None:
    assert [root(expression) for expression, _ in changed(ast.parse(source))] == expected
