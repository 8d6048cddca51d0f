(() => {
	const found = [];
	const shown = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !e.closest(".hidden-text, .hidden") && e.getBoundingClientRect().width > 1;
	const tell = (e, what) => found.push(`${what}: ${e.outerHTML.slice(0, 120)}`);

	// Colours are [red, green, blue, alpha]; a canvas knows all notations.
	const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
	const parse = (colour) => {
		canvas.clearRect(0, 0, 1, 1);
		canvas.fillStyle = colour;
		canvas.fillRect(0, 0, 1, 1);
		const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
		return [r, g, b, a / 255];
	};
	const over = ([r, g, b, a], below) => [r, g, b].map((v, i) => v * a + below[i] * (1 - a));
	const light = (colour) => {
		const [r, g, b] = colour.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const contrast = (a, b) => {
		const [more, less] = [light(a), light(b)].sort((x, y) => y - x);
		return (more + 0.05) / (less + 0.05);
	};
	// ground is the colour behind an element's content, faded what is left of it after its opacity and that of its parents.
	const ground = (e) => {
		if (!e) return [255, 255, 255];
		const colour = parse(getComputedStyle(e).backgroundColor);
		return colour[3] === 1 ? colour : over(colour, ground(e.parentElement));
	};
	const faded = (e) => (e ? Number(getComputedStyle(e).opacity) * faded(e.parentElement) : 1);
	const drawn = (e, colour) => {
		const [r, g, b, a] = parse(colour);
		return over([r, g, b, a * faded(e)], ground(e));
	};

	for (const e of document.querySelectorAll("body *")) {
		if (!shown(e) || e.closest(":disabled")) continue;
		const style = getComputedStyle(e);
		// WCAG 2.2, 1.4.3: text has a contrast of 4.5.
		if ([...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim()) && !e.closest("svg")) {
			const seen = contrast(drawn(e, style.color), ground(e));
			if (seen < 4.5) tell(e, `text of ${seen.toFixed(2)}`);
		}
		// 1.4.11: what shows where a field or a button is, and an icon, have 3.
		const around = ground(e.parentElement);
		const marked = [style.borderTopWidth !== "0px" && drawn(e.parentElement, style.borderTopColor), drawn(e.parentElement, style.backgroundColor)];
		const most = Math.max(...marked.filter(Boolean).map((colour) => contrast(colour, around)));
		const plain = most === 1; // a text or an icon that can be pressed
		const field = e.matches("input:not([type='color'], [type='range'], [type='checkbox'], [type='radio']), textarea, select, .field") && !e.parentElement.closest(".field");
		if ((field || (e.matches("button, .outlined, .primary") && !plain)) && most < 3) tell(e, `an outline of ${most.toFixed(2)}`);
		if (e.matches("button > svg, .empty > svg") && contrast(drawn(e, style.stroke), ground(e)) < 3) tell(e, "a faint icon");
		if (e.matches("button, input, textarea, select, a, [tabindex]")) {
			const by = document.getElementById(e.getAttribute("aria-labelledby"));
			const name = e.getAttribute("aria-label") || by?.textContent || e.textContent || e.labels?.[0]?.textContent || e.ariaLabel;
			if (!name?.trim()) tell(e, "no name");
		}
		// What sticks out is cut off, unless it scrolls there.
		const { left, right } = e.getBoundingClientRect();
		let cut = e.parentElement;
		while (cut && getComputedStyle(cut).overflowX === "visible") cut = cut.parentElement;
		if (!cut && (left < -1 || right > innerWidth + 1)) tell(e, `from ${left} to ${right}`);
	}
	const { scrollWidth } = document.documentElement;
	if (scrollWidth > innerWidth) found.push(`as wide as ${scrollWidth}`);
	const headings = [...document.querySelectorAll("h1")];
	if (headings.length !== 1) found.push(`${headings.length} headings of the first level`);
	return found;
})()
