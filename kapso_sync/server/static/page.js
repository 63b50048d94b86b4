// Keeps the page fresh: on each change it is fetched again, and only what differs is touched. So focus, scroll positions,
// selected text and opened diffs stay where they are. Without this script the page reloads itself.
"use strict";
(() => {
  const EVERY = 10000; // relative times grow old without any event
  const offline = document.getElementById("offline");
  let busy = false, again = false, seen = new Date();

  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");

  function copyAttributes(to, from) {
    for (const { name } of [...to.attributes]) {
      // Whether a diff is open is up to who reads it.
      if (!from.hasAttribute(name) && name !== "open") to.removeAttribute(name);
    }
    for (const { name, value } of [...from.attributes]) {
      if (to.getAttribute(name) !== value) to.setAttribute(name, value);
    }
  }

  // Makes the children of one element those of another. What has an id is found again wherever it went.
  function morph(to, from) {
    const wantedIds = new Set([...from.children].map((child) => child.id));
    const known = new Map();
    for (const child of [...to.children]) {
      if (child.id && wantedIds.has(child.id)) known.set(child.id, child);
      else if (child.id) child.remove();
    }
    let place = to.firstChild;
    const drop = () => { const next = place.nextSibling; place.remove(); place = next; };
    for (const wanted of from.childNodes) {
      const twin = known.get(wanted.id || "");
      // Removing what is in between is better than moving the twin, which would lose its focus and scroll position.
      while (twin && place && place !== twin && !place.id) drop();
      const found = twin || (place && same(place, wanted) ? place : null);
      if (!found) to.insertBefore(document.importNode(wanted, true), place);
      else {
        if (found === place) place = place.nextSibling;
        else to.insertBefore(found, place);
        update(found, wanted);
      }
    }
    while (place) drop();
  }

  function update(node, wanted) {
    if (node.nodeType !== Node.ELEMENT_NODE) {
      if (node.nodeValue !== wanted.nodeValue) node.nodeValue = wanted.nodeValue;
    } else if (!node.isEqualNode(wanted)) {
      copyAttributes(node, wanted);
      morph(node, wanted);
    }
  }

  function tellOffline(gone) {
    if (offline.hidden !== gone) return;
    offline.textContent = gone ? `No answer since ${seen.toLocaleTimeString()}: what you see may be out of date.` : "";
    offline.hidden = !gone;
  }

  async function fetchPage() {
    const here = new URL(location.href);
    if (performance.now() > EVERY) here.searchParams.delete("done"); // what was just done is said for a while
    const answer = await fetch(here, { credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(EVERY) });
    if (!answer.ok) throw new Error(answer.status);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  // What one reads stays where it is, whatever appears above: the focus if it is in sight, else the first row that is.
  function findAnchor() {
    const inSight = (element) => {
      const { top } = element.getBoundingClientRect();
      return top >= 0 && top < innerHeight;
    };
    const rows = [document.activeElement, ...document.querySelectorAll("main [id]")];
    return scrollY > 0 ? rows.find((element) => element.closest("main") && inSight(element)) : null;
  }

  function show(fresh) {
    const focused = document.activeElement, anchor = findAnchor();
    const before = anchor ? anchor.getBoundingClientRect().top : 0;
    for (const name of ["header", "main", "footer"]) update(document.querySelector(name), fresh.querySelector(name));
    if (document.title !== fresh.title) document.title = fresh.title;
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    if (anchor && anchor.isConnected) scrollBy({ top: anchor.getBoundingClientRect().top - before, behavior: "instant" });
  }

  async function refresh() {
    if (document.hidden) return;
    if (busy) { again = true; return; }
    busy = true;
    try {
      show(await fetchPage());
      seen = new Date();
      tellOffline(false);
    } catch {
      tellOffline(true);
    } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  }

  const source = new EventSource("/events");
  source.addEventListener("changed", refresh);
  source.addEventListener("open", refresh);
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, EVERY);
})();
