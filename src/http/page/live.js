// Fetches the page now and then and exchanges the parts that say data-live. Without it the page renews itself whole.
(() => {
  const PAUSE = 10000;
  const lost = document.getElementById("lost");
  const isBusy = () => document.hidden || !getSelection().isCollapsed;
  const name = (element) => element && (element.id || element.getAttribute("href") || element.dataset.key);

  const exchange = (part, fresh) => {
    if (!fresh || part.innerHTML === fresh.innerHTML) return;
    const focused = part.contains(document.activeElement) ? name(document.activeElement) : null;
    const open = new Set([...part.querySelectorAll("details[open]")].map(name));
    const next = document.importNode(fresh, true);
    for (const details of next.querySelectorAll("details")) {
      if (open.has(name(details))) details.open = true;
    }
    part.replaceWith(next);
    if (!focused) return;
    const candidates = next.querySelectorAll("a, summary, [tabindex]");
    [...candidates].find((element) => name(element) === focused)?.focus({ preventScroll: true });
  };

  const renew = async () => {
    if (!isBusy()) {
      try {
        const answer = await fetch(location.href, { cache: "no-store", headers: { accept: "text/html" } });
        if (!answer.ok) throw new Error(answer.statusText);
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll("[data-live]")) exchange(part, fresh.getElementById(part.id));
        lost.hidden = true;
      } catch {
        lost.hidden = false;
      }
    }
    setTimeout(renew, PAUSE);
  };
  setTimeout(renew, PAUSE);
})();
