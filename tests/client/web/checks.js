// What a reader needs, checked in the page: contrast, names, ids, headings. Each returns what is wrong.
(() => {
  const channel = (c) => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return numbers(getComputedStyle(document.body).backgroundColor);
  };
  const seen = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) && !element.closest(".unseen, .skip, [aria-disabled=true]");
  const contrast = () => {
    const wrong = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || !seen(element) || element.closest(":disabled, option") || element.closest("input:disabled + span")) continue;
      const style = getComputedStyle(element);
      const pair = [luminance(numbers(style.color)), luminance(ground(element))].sort((a, b) => b - a);
      const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
      const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
      if (ratio < (large ? 3 : 4.5)) wrong.push(`${ratio.toFixed(2)}: ${walker.currentNode.data.trim().slice(0, 40)}`);
    }
    return wrong;
  };
  const ids = () => {
    const all = [...document.querySelectorAll("[id]")].map((element) => element.id);
    const named = [...document.querySelectorAll("[for], [aria-describedby], [aria-labelledby]")]
      .flatMap((e) => (e.getAttribute("for") ?? e.getAttribute("aria-describedby") ?? e.getAttribute("aria-labelledby")).split(" "));
    return [...all.filter((id, at) => all.indexOf(id) !== at), ...named.filter((id) => !all.includes(id))];
  };
  const headings = () => {
    const levels = [...document.querySelectorAll("main :is(h1, h2, h3, h4)")].map((h) => Number(h.tagName[1]));
    return levels.filter((level, at) => level > (at ? levels[at - 1] : 0) + 1);
  };
  const small = () => [...document.querySelectorAll("button, select, textarea, summary")].filter((e) => seen(e) && e.getBoundingClientRect().height < 24).map((e) => e.outerHTML.slice(0, 60));
  const wide = () => [...document.querySelectorAll("main *")].filter((e) => seen(e) && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 60));
  return { contrast: contrast(), ids: ids(), headings: headings(), small: small(), wide: wide() };
})()
