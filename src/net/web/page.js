// page.js - draws /status.json every second and a half, and the last hour from /history.json
"use strict";

const POLL_MS = 1500, HISTORY_MS = 60000;
const SVG = "http://www.w3.org/2000/svg";
const el = (id) => document.getElementById(id);

function node(tag, props, ...kids) {
	const n = Object.assign(document.createElement(tag), props || {});
	n.append(...kids);
	return n;
}

function svg(tag, attrs, text) {
	const n = document.createElementNS(SVG, tag);
	for (const k in attrs) n.setAttribute(k, attrs[k]);
	if (text !== undefined) n.textContent = text;
	return n;
}

const scaled = (v, base, units) => {
	let i = 0;
	while (v >= base && i < units.length - 1) { v /= base; i++; }
	return (v >= 100 || Number.isInteger(v) ? Math.round(v) : v.toPrecision(3)) + units[i];
};

// Values come in base units; the unit says how people read them.
function human(v, unit) {
	if (v === null || v === undefined) return "–";
	if (typeof v === "string") return v;
	if (unit === "bytes") return scaled(v, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]);
	if (unit === "bytes/s") return scaled(v, 1000, [" B/s", " kB/s", " MB/s", " GB/s"]);
	if (unit === "seconds") {
		if (v < 1) return Math.round(v * 1000) + " ms";
		if (v < 120) return Math.round(v) + " s";
		if (v < 7200) return Math.round(v / 60) + " min";
		if (v < 172800) return Math.round(v / 3600) + " h";
		return Math.round(v / 86400) + " d";
	}
	if (unit === "days") return Math.floor(v) + " d";
	if (unit) return v.toLocaleString("en") + " " + unit;
	return v.toLocaleString("en");
}

function drawTiles(tiles) {
	el("tiles").replaceChildren(...tiles.map((t) => node("div", { className: "tile " + (t.level || ""), title: t.hint || "" },
		node("div", { className: "value", textContent: human(t.value, t.unit) }),
		node("div", { className: "label", textContent: t.label }))));
}

// A round number just above, so that the axis does not jump with each sample.
function ceiling(v) {
	if (v <= 0) return 1;
	const p = Math.pow(10, Math.floor(Math.log10(v)));
	return [1, 2, 5, 10].map((m) => m * p).find((m) => m >= v);
}

function drawGraph(series, stepS, second) {
	const W = 600, H = 176, L = 64, R = 8, T = 10, B = 22;
	const points = series.points, max = ceiling(Math.max(0, ...points)), n = Math.max(points.length - 1, 1);
	const x = (i) => L + (W - L - R) * i / n, y = (v) => H - B - (H - T - B) * v / max;
	const s = svg("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": series.label });
	for (const part of [0, 0.5, 1]) {
		s.append(svg("line", { class: "grid", x1: L, x2: W - R, y1: y(max * part), y2: y(max * part) }));
		s.append(svg("text", { x: L - 6, y: y(max * part) + 4, "text-anchor": "end" }, human(max * part, series.unit)));
	}
	const total = stepS * n;
	for (const part of [0, 0.5, 1])
		s.append(svg("text", { x: L + (W - L - R) * part, y: H - 6,
			"text-anchor": part === 0 ? "start" : part === 1 ? "end" : "middle" },
			part === 1 ? "now" : "-" + human(total * (1 - part), "seconds")));
	if (points.length > 1) {
		const path = points.map((v, i) => (i ? "L" : "M") + x(i).toFixed(1) + " " + y(v).toFixed(1)).join("");
		s.append(svg("path", { class: "area", d: `${path}L${x(n)} ${y(0)}L${x(0)} ${y(0)}Z` }));
		s.append(svg("path", { class: "curve", d: path }));
	}
	const last = points.length ? human(points[points.length - 1], series.unit) : "–";
	return node("div", { className: "card" + (second ? " second" : "") },
		node("h2", {}, series.label + " ", node("span", { className: "dim", textContent: last })), s);
}

function drawTables(tables) {
	const scroll = [...document.querySelectorAll(".scroll")].map((n) => n.scrollLeft);
	el("tables").replaceChildren(...tables.map((t) => {
		const cls = (i) => (t.columns[i].unit !== undefined ? "num" : "");
		const body = t.rows.length ? t.rows.map((r) => node("tr", {}, ...r.map((v, i) =>
			node("td", { className: cls(i), textContent: human(v, t.columns[i].unit) })))) :
			[node("tr", {}, node("td", { className: "dim", colSpan: t.columns.length, textContent: t.empty || "none" }))];
		return node("div", { className: "card", id: "table-" + t.id },
			node("h2", {}, t.title + " ", node("span", { className: "dim", textContent: t.note || "" })),
			node("div", { className: "scroll" }, node("table", {},
				node("thead", {}, node("tr", {}, ...t.columns.map((c, i) => node("th", { className: cls(i), textContent: c.label })))),
				node("tbody", {}, ...body))));
	}));
	document.querySelectorAll(".scroll").forEach((n, i) => { n.scrollLeft = scroll[i] || 0; });
}

let history = null;

// What /history.json told, moved on by what the status says now, until it is asked again.
function drawGraphs(status) {
	if (!history) return;
	el("graphs").replaceChildren(...history.series.map((s, i) => {
		const now = status.now[s.id];
		return drawGraph({ ...s, points: now === undefined ? s.points : s.points.concat([now]) }, history.step_s, i % 2 === 1);
	}));
}

function drawState(s) {
	document.title = s.name + " · " + s.program;
	el("name").textContent = s.name;
	el("about").textContent = `${s.program} ${s.version}, pid ${s.pid}, up ${human(s.uptime_s, "seconds")}`;
	el("dot").className = "dot " + (s.ready ? "good" : s.state === "draining" ? "warn" : "bad");
	el("state").textContent = s.ready ? s.state : s.state + ": " + s.reasons.join(", ");
}

async function get(path) {
	const r = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5000) });
	if (!r.ok) throw new Error(path + ": " + r.status);
	return r.json();
}

async function poll() {
	try {
		const s = await get("/status.json");
		document.body.classList.remove("stale");
		drawState(s);
		drawTiles(s.tiles);
		drawGraphs(s);
		drawTables(s.tables);
	} catch (e) {
		document.body.classList.add("stale");
		el("dot").className = "dot bad";
		el("state").textContent = "no answer: " + e.message;
	}
	setTimeout(poll, POLL_MS);
}

async function pollHistory() {
	try { history = await get("/history.json"); } catch (e) { /* poll() shows it */ }
	setTimeout(pollHistory, HISTORY_MS);
}

pollHistory().then(poll);
