// Keeps the page fresh: on each change the status is fetched and put in place; focus, scroll and opened diffs stay.
"use strict";
(() => {
  const main = () => document.getElementById("status");
  let busy = false, again = false;

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch("/", { credentials: "same-origin", cache: "no-store" });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = fresh.getElementById("status");
      if (!next) return;
      const focused = document.activeElement && document.activeElement.closest("[id]");
      for (const details of main().querySelectorAll("details[open]")) {
        const twin = next.querySelector("#" + CSS.escape(details.id));
        if (twin) twin.open = true;
      }
      if (next.innerHTML !== main().innerHTML) {
        const inSummary = document.activeElement && document.activeElement.tagName === "SUMMARY";
        main().replaceWith(document.adoptNode(next));
        document.title = fresh.title;
        const target = focused && document.getElementById(focused.id);
        if (target) (inSummary ? target.querySelector("summary") : target).focus({ preventScroll: true });
      }
    } catch (error) {
      // The daemon may be restarting: the next event or tick tries again.
    } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  }

  new EventSource("/events").addEventListener("changed", refresh);
  setInterval(refresh, 10000);
})();
