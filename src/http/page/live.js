// Fetches the page now and then and exchanges the parts that say data-live. Without it the page renews itself whole.
(() => {
  const PAUSE = 10000;
  // An exporter that hangs does not refuse; it says nothing.
  const PATIENCE = 8000;
  const lost = document.getElementById("lost");
  // What somebody has selected is not taken from under the mouse. That it is out of date is said all the same.
  const isBusy = () => !getSelection().isCollapsed;
  // What an element is known by from one exchange to the next. Links that lead to the same place differ in their words, and
  // numbers in these change.
  const name = (element) =>
    element.dataset.key ||
    element.id ||
    element.getAttribute("aria-labelledby") ||
    `${element.getAttribute("href")} ${element.textContent.replace(/[\d,]/g, "")}`;

  const exchange = (part, fresh) => {
    if (!fresh || part.innerHTML === fresh.innerHTML) return;
    const focused = part.contains(document.activeElement) ? name(document.activeElement) : null;
    const scrolled = new Map([...part.querySelectorAll(".scroll")].map((box) => [name(box), box.scrollLeft]));
    const open = new Set([...part.querySelectorAll("details[open]")].map(name));
    const next = document.importNode(fresh, true);
    for (const details of next.querySelectorAll("details")) {
      if (open.has(name(details))) details.open = true;
    }
    part.replaceWith(next);
    for (const box of next.querySelectorAll(".scroll")) box.scrollLeft = scrolled.get(name(box)) ?? 0;
    if (!focused) return;
    const candidates = next.querySelectorAll("a, summary, [tabindex]");
    [...candidates].find((element) => name(element) === focused)?.focus({ preventScroll: true });
  };

  // What was true before is not said in its colours.
  const show = (isLost) => {
    lost.hidden = !isLost;
    document.body.classList.toggle("lost", isLost);
  };

  const renew = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, {
          cache: "no-store",
          headers: { accept: "text/html" },
          signal: AbortSignal.timeout(PATIENCE),
        });
        // A customer that is gone, or a password that is asked for: the browser shows what is said of it.
        if ((answer.status === 404 || answer.status === 401) && !isBusy()) return location.reload();
        if (!answer.ok) throw new Error(answer.statusText);
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        // A page of somebody else's, as of a proxy that asks who is there, says nothing about the data.
        if (!fresh.querySelector("[data-live]")) throw new Error("another page");
        if (!isBusy()) {
          for (const part of document.querySelectorAll("[data-live]")) exchange(part, fresh.getElementById(part.id));
        }
        show(false);
      } catch {
        show(true);
      }
    }
    setTimeout(renew, PAUSE);
  };
  setTimeout(renew, PAUSE);
})();
