"""What a commit's tree may hold, and its limits."""

from __future__ import annotations

import time

import pytest

from kapso_sync.errors import InvalidSource, SourceMissing, SourceUnavailable
from kapso_sync.model.source import CODE_LIMIT, CONFIG_COUNT_LIMIT, CONFIG_LIMIT, FILE_COUNT_LIMIT, LOCK_LIMIT, MANIFEST_LIMIT
from kapso_sync.sources.file_rules import configurations
from tests.sources.repositories import CODE, MANIFEST, Reader, Repository, contents, problems


async def test_symlinks_and_submodules_in_a_tree_are_reported_and_not_followed(upstream: Repository, reader: Reader) -> None:
    """Neither /etc/passwd nor another repository is read; the other files are."""
    (upstream.folder / "link.ts").symlink_to("/etc/passwd")
    (upstream.folder / "inner.ts").symlink_to("a.ts")
    commit = upstream.commit()
    for name in ("vendor", "sub/module.ts"):
        upstream.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{name}")
    upstream.git("commit", "--quiet", "--message", "modules")
    snapshot = await reader.open(upstream.url).fetch()
    assert problems(snapshot) == {
        "link.ts": "is a symbolic link, which is not followed in a repository",
        "inner.ts": "is a symbolic link, which is not followed in a repository",
        "vendor": "is a submodule, which is not followed",
        "sub/module.ts": "is a submodule, which is not followed",
    }
    assert snapshot.files["a.ts"].content == CODE.encode()


async def test_links_to_folders_are_reported_whatever_their_name(upstream: Repository, reader: Reader) -> None:
    """`shared` is a link: an entry that names a file behind it must hear that, and not that the file does not exist."""
    (upstream.folder / "lib").mkdir()
    (upstream.folder / "shared").symlink_to("lib")
    (upstream.folder / "node_modules").symlink_to("lib")
    upstream.commit({"lib/b.ts": CODE, "logo.png": "x", "lib/rates.csv": "a"})
    snapshot = await reader.open(upstream.url).fetch()
    assert problems(snapshot) == {"shared": "is a symbolic link, which is not followed in a repository"}
    assert snapshot.unread == {"logo.png", "lib/rates.csv"}


@pytest.mark.parametrize(("mode", "kind"), [("160000", "submodule"), ("120000", "symbolic link"), ("100644", "file")])
async def test_a_functions_folder_of_another_kind_is_named_as_what_it_is(
    mode: str, kind: str, upstream: Repository, reader: Reader
) -> None:
    """`--path vendor/flows`, where vendor is a submodule, a link or a file."""
    target = upstream.commit() if mode == "160000" else upstream.blob(b"lib")
    upstream.commit_tree(("100644", b"a.ts", upstream.blob(b"x")), (mode, b"vendor", target))
    with pytest.raises(SourceMissing, match=f"has no folder vendor/flows: vendor is a {kind}"):
        await reader.open(upstream.url, path="vendor/flows").fetch()


async def test_the_executable_bit_makes_no_difference(upstream: Repository, reader: Reader) -> None:
    """Code is read whatever its mode, old group-writable entries included."""
    blob = upstream.blob(b"x")
    upstream.commit_tree(("100644", b"a.ts", blob), ("100664", b"b.ts", blob), ("100755", b"c.ts", blob))
    assert contents(await reader.open(upstream.url).fetch()) == {"a.ts": b"x", "b.ts": b"x", "c.ts": b"x"}


async def test_file_names_with_spaces_newlines_or_invalid_unicode_are_read(upstream: Repository, reader: Reader) -> None:
    """They are neither changed nor refused."""
    blob = upstream.blob(b"x")
    names = sorted([b"a b.ts", b"new\nline.ts", "ñ-größe.ts".encode(), b"\xff.ts", b"-rf.ts"])
    upstream.commit_tree(*(("100644", name, blob) for name in names))
    found = await reader.open(upstream.url).fetch()
    assert set(found.files) == {name.decode("utf-8", "surrogateescape") for name in names}
    assert not problems(found)


async def test_hidden_files_and_node_modules_are_not_read(upstream: Repository, reader: Reader) -> None:
    """As in a folder."""
    upstream.commit({".env.json": "x", ".github/a.yaml": "x", "node_modules/x/index.js": "x", "logo.png": "x", "lib/b.ts": "x"})
    assert set((await reader.open(upstream.url).fetch()).files) == {"manifest.yaml", "a.ts", "lib/b.ts"}


async def test_files_above_the_size_limit_are_reported_and_not_read(upstream: Repository, reader: Reader) -> None:
    """1 MiB of code and 256 KiB of manifest are accepted, a byte more is not."""
    upstream.commit(
        {
            "manifest.yaml": b"x" * MANIFEST_LIMIT,
            "fits.ts": b"x" * CODE_LIMIT,
            "more.ts": b"x" * (CODE_LIMIT + 1),
            "huge.js": b"x" * (4 << 20),
            "sub/function.yaml": b"x" * (MANIFEST_LIMIT + 1),
        }
    )
    snapshot = await reader.open(upstream.url).fetch()
    assert problems(snapshot) == {
        "more.ts": "is 1.1 MiB; the limit for a code file is 1 MiB",
        "huge.js": "is 4 MiB; the limit for a code file is 1 MiB",
        "sub/function.yaml": "is 256.1 KiB; the limit for a manifest is 256 KiB",
    }
    assert len(snapshot.files["fits.ts"].content or b"") == CODE_LIMIT


async def test_too_many_files_are_an_error_with_a_hint(upstream: Repository, reader: Reader) -> None:
    """Only the functions folder counts: --path makes a large repository readable."""
    blob = upstream.blob(b"x")
    lines = "".join(f"100644 blob {blob}\t{number}.json\n" for number in range(FILE_COUNT_LIMIT + 1))
    large = upstream.git("mktree", stdin=lines.encode())
    small = upstream.git("mktree", stdin=f"100644 blob {blob}\ta.ts\n".encode())
    upstream.commit_tree(("40000", b"data", large), ("40000", b"flows", small))
    with pytest.raises(InvalidSource, match="holds more than 10,000 files of code and text") as caught:
        await reader.open(upstream.url).fetch()
    assert "--path" in str(caught.value.hint)
    assert set((await reader.open(upstream.url, path="flows").fetch()).files) == {"a.ts"}


@pytest.mark.parametrize("name", [b"..", b".git", b"a/b.ts"])
async def test_a_tree_with_unsafe_names_is_refused(name: bytes, upstream: Repository, reader: Reader) -> None:
    """Git itself would not create it; a name never becomes a path outside."""
    upstream.commit_tree(("100644", name, upstream.blob(b"x")))
    with pytest.raises(SourceUnavailable):
        await reader.open(upstream.url).fetch()
    assert reader.seen == []


async def test_a_tree_entry_of_an_unknown_mode_is_an_error(upstream: Repository, reader: Reader) -> None:
    """The error says what is wrong with the repository."""
    upstream.commit_tree(("20000", b"device.ts", upstream.blob(b"x")))
    with pytest.raises(SourceUnavailable, match="the repository cannot be read"):
        await reader.open(upstream.url).fetch()


async def test_file_bytes_are_not_converted(upstream: Repository, reader: Reader) -> None:
    """Line endings and binary bytes stay, whatever .gitattributes says."""
    raw = b"a\r\nb\0\xff"
    blob = upstream.blob(raw)
    attributes = upstream.blob(b"*.ts text eol=lf ident working-tree-encoding=UTF-16\n")
    upstream.commit_tree(
        ("100644", b".gitattributes", attributes), ("100644", b"a.ts", blob), ("100644", b"manifest.yaml", upstream.blob(b""))
    )
    assert contents(await reader.open(upstream.url).fetch()) == {"a.ts": raw, "manifest.yaml": b""}


async def test_a_folder_and_a_repository_of_the_same_files_agree(upstream: Repository, reader: Reader) -> None:
    """A user can try in a work tree what a push will deploy."""
    upstream.commit({"lib/b.ts": "b", "manifest.yaml": MANIFEST})
    committed = await reader.open(upstream.url).fetch()
    lying = await reader.open_folder(upstream.folder, work_tree=True).fetch()
    assert committed.files == lying.files


async def test_the_lock_files_of_the_functions_folder_and_of_its_parents_are_read(upstream: Repository, reader: Reader) -> None:
    """Up to the repository's root, and not beside it; a symbolic link is named, and not followed."""
    (upstream.folder / "services").mkdir()
    (upstream.folder / "services" / "package-lock.json").symlink_to("/etc/passwd")
    commit = upstream.commit(
        {
            "package-lock.json": "root",
            "other/package-lock.json": "beside",
            "services/fns/package-lock.json": "home",
            "services/fns/one/package-lock.json": "below",
            "services/fns/a.ts": CODE,
        }
    )
    snapshot = await reader.open(upstream.url, path="services/fns").fetch()
    assert {folder: file.content for folder, file in snapshot.lock_files.items()} == {"": b"root", "services": None}
    assert snapshot.lock_files["services"].problem == "is a symbolic link, which is not followed in a repository"
    assert {path for path in snapshot.files if path.endswith(".json")} == {"package-lock.json", "one/package-lock.json"}
    upstream.commit({"package-lock.json": "changed"})
    again = await reader.open(upstream.url, path="services/fns").fetch()
    assert again.revision.id != commit
    assert again.lock_files[""].content == b"changed"


async def test_the_configurations_above_the_functions_folder_are_read(upstream: Repository, reader: Reader) -> None:
    """Up to the repository's root, and not beside it; a folder and a repository of the same files agree."""
    upstream.commit(
        {
            "tsconfig.json": "root",
            "tsconfig.base.json": "base",
            "other.json": "no configuration",
            ".tsconfig.json": "hidden",
            "beside/tsconfig.json": "beside",
            "services/package.json": "{}",
            "services/jsconfig.json": "{}",
            "services/fns/tsconfig.json": "inside",
            "services/fns/a.ts": CODE,
        }
    )
    (upstream.folder.parent / "tsconfig.json").write_text("outside")
    snapshot = await reader.open(upstream.url, path="services/fns").fetch()
    assert {path: file.content for path, file in snapshot.above.files.items()} == {
        "../jsconfig.json": b"{}",
        "../package.json": b"{}",
        "../../tsconfig.json": b"root",
        "../../tsconfig.base.json": b"base",
    }
    assert snapshot.above.home == "services/fns"
    assert "tsconfig.json" in snapshot.files
    lying = await reader.open_folder(upstream.folder, "services/fns", work_tree=True).fetch()
    assert lying.above == snapshot.above
    assert (await reader.open(upstream.url, path="").fetch()).above.files == {}


def test_a_name_that_no_file_system_takes_configures_nothing() -> None:
    """A tree may have a name of megabytes, and looking for a pattern in it takes the square of that."""
    started = time.process_time()
    assert configurations(["tsconfig" * 20_000, "tsconfig.json", f"{'a' * 300}tsconfig.json"]) == ["tsconfig.json"]
    assert time.process_time() - started < 1.0


async def test_configurations_above_are_small_few_and_no_links(upstream: Repository, reader: Reader) -> None:
    """What is not read is named; of many the nearest are read."""
    (upstream.folder / "deep").mkdir()
    (upstream.folder / "deep" / "jsconfig.json").symlink_to("/etc/passwd")
    upstream.commit(
        {
            "tsconfig.json": b" " * CONFIG_LIMIT,
            "deep/tsconfig.json": b" " * (CONFIG_LIMIT + 1),
            **{f"tsconfig.{number:02}.json": "{}" for number in range(30)},
            "deep/fns/a.ts": CODE,
        }
    )
    for opened in (
        reader.open(upstream.url, path="deep/fns"),
        reader.open_folder(upstream.folder, "deep/fns", work_tree=True),
    ):
        files = (await opened.fetch()).above.files
        assert len(files) == CONFIG_COUNT_LIMIT
        assert len(files["../../tsconfig.json"].content or b"") == CONFIG_LIMIT
        large = "is 256.1 KiB; the limit for a configuration file above the functions folder is 256 KiB"
        assert (files["../tsconfig.json"].content, files["../tsconfig.json"].problem) == (None, large)
        assert files["../jsconfig.json"].content is None


async def test_a_lock_file_may_have_eight_mebibytes(upstream: Repository, reader: Reader) -> None:
    """More than code, which may have one; a byte more is named and not read."""
    upstream.commit(
        {"package-lock.json": b"x" * LOCK_LIMIT, "deep/package-lock.json": b"x" * (LOCK_LIMIT + 1), "deep/fns/a.ts": CODE}
    )
    snapshot = await reader.open(upstream.url, path="deep/fns").fetch()
    assert len(snapshot.lock_files[""].content or b"") == LOCK_LIMIT
    assert snapshot.lock_files["deep"].content is None
    assert snapshot.lock_files["deep"].problem == "is 8.1 MiB; the limit for a lock file is 8 MiB"
