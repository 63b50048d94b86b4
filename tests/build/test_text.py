"""Every file of a function is UTF-8 text, and what git's filters leave in its place is named."""

from __future__ import annotations

import pytest

from tests.build.workbench import SCRIPT, answers, bad, entry, good, needs_esbuild, needs_node, where

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
GIT_CRYPT = b"\0GITCRYPT\0\x8a\xff\x01"
ANNEX = b"/annex/objects/SHA256E-s1048576--0f1e.html\n"

FILES = {
    "Latin-1 text": ("words.txt", b"uno\ndos ni\xf1os\n", "not-utf8", (2, 7), "0xf1"),
    "Latin-1 HTML": ("page.html", "<p>\n <b>sí</b>".encode("latin-1"), "not-utf8", (2, 6), "0xed"),
    "Latin-1 JSON": ("data.json", b'{"city": "M\xe1laga"}', "not-utf8", (1, 12), "0xe1"),
    "Latin-1 code": ("lib.js", b"// one\nexport default 'caf\xe9'", "not-utf8", (2, 20), "0xe9"),
    "UTF-16 with a mark": ("words.md", "año".encode("utf-16"), "not-utf8", (1, 1), "UTF-16"),
    "UTF-16 without a mark": ("words.css", "body {}".encode("utf-16-le"), "not-utf8", (1, 1), "UTF-16"),
    "a NUL character": ("query.sql", b"select 1;\nx\0y", "binary", (2, 2), "NUL"),
    "a Git LFS pointer": ("page.svg", LFS, "git-lfs", (1, 1), "Git LFS"),
    "a Git LFS pointer of old": (
        "page.txt",
        LFS.replace(b"git-lfs.github.com", b"hawser.github.com"),
        "git-lfs",
        (1, 1),
        "Git LFS",
    ),
    "a Git LFS pointer with CRLF": ("page.md", LFS.replace(b"\n", b"\r\n"), "git-lfs", (1, 1), "Git LFS"),
    "a Git LFS pointer with a mark": ("page.css", b"\xef\xbb\xbf" + LFS, "git-lfs", (1, 1), "Git LFS"),
    "a NUL character at the beginning": ("page.graphql", b"a\0b", "binary", (1, 2), "NUL"),
    "a Git LFS pointer as code": ("lib.ts", LFS, "git-lfs", (1, 1), "Git LFS"),
    "a git-crypt file": ("keys.json", GIT_CRYPT, "git-crypt", (1, 1), "git-crypt"),
    "a git-annex pointer": ("page.html", ANNEX, "git-annex", (1, 1), "git-annex"),
}


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("through", ["directly", "through another file"])
def test_an_imported_file_that_is_not_utf8_text_is_refused_with_its_place(what: str, through: str) -> None:
    """Mangled text never goes live, whoever imports the file."""
    name, content, code, place, said = FILES[what]
    texts: dict[str, str | bytes] = {"a.js": f"import x from './{name}';\nexport default () => new Response(x)", name: content}
    if through != "directly":
        texts = {
            "a.js": "import x from './b.js';\nexport default () => new Response(x)",
            "b.js": f"export {{ default }} from './{name}'",
            name: content,
        }
    (problem,) = bad(texts, "a.js")
    assert where(problem) == (code, name, *place)
    assert said in problem.message
    assert "working-tree-encoding" in (problem.hint or "") or code != "not-utf8"


@pytest.mark.parametrize("what", [name for name, (file, *_) in FILES.items() if file.endswith((".js", ".ts"))])
@pytest.mark.parametrize("kind", ["cloudflare_worker", "supabase_function"])
def test_an_entry_that_is_not_its_own_content_is_refused(what: str, kind: str) -> None:
    """Both kinds of functions, code or not."""
    name, content, code, place, _ = FILES[what]
    (problem,) = bad({name: content}, entry(name, function_type=kind))
    assert where(problem) == (code, name, *place)


@needs_esbuild
@needs_node
def test_a_byte_order_mark_and_any_unicode_text_are_fine() -> None:
    """The mark is no part of a text; what looks like a pointer further down is text."""
    text = "\ufeff¡niños! 日本 \U0001f389\n" + LFS.decode()
    code = good({"a.js": "import t from './t.txt';\nexport default () => new Response(t)", "t.txt": text}, "a.js")
    assert answers([code], SCRIPT) == [(200, text.removeprefix("\ufeff"))]
