"""Panels and whole dashboards: what all of them share, so that each board is a list of questions.

Every panel says what it shows and what it means when it is blank. Nothing here is green by
default: the colour below every threshold, which is that of no value too, is UNKNOWN's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from boards import colours
from boards.promql import CODES, Query

DATASOURCE = models.DataSourceRef("prometheus", "${datasource}")
BLANK = "UNKNOWN: no data"
JOB = "dvfd"
"""What Prometheus is told to call its job; `up` has other jobs' targets too, which are no nodes."""

COLUMNS = 24
"""Width of Grafana's grid."""

Step = tuple[float | None, str]
Steps = tuple[Step, ...]

PLAIN: Steps = ((None, colours.SERIES[0]),)
"""For values that are neither good nor bad."""


def below(limit: float) -> Steps:
    """Good below *limit*, bad from it on; UNKNOWN's colour below zero, where null lies."""
    return ((None, colours.UNKNOWN), (0, colours.PASS), (limit, colours.FAIL))


def above(limit: float) -> Steps:
    """Bad below *limit*, good from it on."""
    return ((None, colours.UNKNOWN), (0, colours.FAIL), (limit, colours.PASS))


NONE_WANTED = below(0.5)
"""For counts that should be 0; half, because a rate that is extrapolated may be a fraction."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a value is called and which colour it has."""

    word: str
    colour: str


SILENT = 2
YES_NO = {
    0: Said("no", colours.FAIL),
    1: Said("yes", colours.PASS),
    SILENT: Said("UNKNOWN", colours.UNKNOWN),
}
VERDICT = {code: Said(name, colours.VERDICTS[name]) for name, code in CODES.items()}


def described(shows: str, blank: str) -> str:
    """A panel's description."""
    return f"{shows}\n\n**Blank:** {blank}"


def verdict(title: str, shows: str, *queries: Query, blank: str, span: int = 4) -> Any:
    """The worst verdict now, as a word on its colour."""
    return said(title, shows, *queries, values=VERDICT, blank=blank, span=span)


def said(
    title: str,
    shows: str,
    *queries: Query,
    values: Mapping[int, Said],
    blank: str,
    span: int = 4,
) -> Any:
    """A state now, as a word on its colour."""
    steps: Steps = ((None, colours.UNKNOWN),)
    return (
        _base(stat.Panel(), title, shows, queries, blank=blank, span=span, height=4)
        .mappings(_mappings(values))
        .thresholds(_thresholds(steps))
        .color_mode(kinds.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .text_mode(kinds.BigValueTextMode.VALUE)
        .reduce_options(_last())
    )


def number(
    title: str,
    shows: str,
    *queries: Query,
    unit: str,
    blank: str,
    steps: Steps = PLAIN,
    decimals: int | None = None,
    span: int = 4,
    named: bool = False,
) -> Any:
    """A figure now; its colour says good or bad only where *steps* do."""
    panel = (
        _base(stat.Panel(), title, shows, queries, blank=blank, span=span, height=4)
        .unit(unit)
        .mappings(_mappings({}))
        .thresholds(_thresholds(steps))
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .text_mode(kinds.BigValueTextMode.VALUE_AND_NAME if named else kinds.BigValueTextMode.VALUE)
        .reduce_options(_last())
    )
    return panel if decimals is None else panel.decimals(decimals)


def bars(
    title: str, shows: str, *queries: Query, unit: str, blank: str, colour: str, span: int = 12
) -> Any:
    """One bar for each series now, the longest first."""
    return (
        _base(bargauge.Panel(), title, shows, queries, blank=blank, span=span, height=9)
        .unit(unit)
        .min(0)
        .mappings(_mappings({}))
        .thresholds(_thresholds(((None, colour),)))
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .reduce_options(_last())
    )


def lines(
    title: str,
    shows: str,
    *queries: Query,
    unit: str,
    blank: str,
    span: int = 12,
    top: float | None = None,
    least: float | None = 0,
    stacked: bool = False,
    every: str = "",
    colour: Mapping[str, str] | None = None,
) -> Any:
    """Courses over time. A gap is a time that nobody observed: it is never bridged.

    *every* is the least step; stacked ones are bars then, one for each. Others stay lines: bars of
    several series would hide one another. *colour* names series by their legend.
    """
    panel = (
        _base(timeseries.Panel(), title, shows, queries, blank=blank, span=span, height=8)
        .unit(unit)
        .span_nulls(span_nulls=False)
        .line_width(1.5)
        .fill_opacity(70 if stacked else 6)
        .show_points(kinds.VisibilityMode.AUTO)
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI))
        .legend(_legend())
        .thresholds(_thresholds(PLAIN))
    )
    if every:
        panel = panel.interval(every)
    if every and stacked:
        panel = panel.draw_style(kinds.GraphDrawStyle.BARS)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    if least is not None:
        panel = panel.axis_soft_min(least)
    if top is not None:
        panel = panel.axis_soft_max(top)
    for number_, query in enumerate(queries):
        panel = panel.override_by_query(_ref(number_), _look(query, number_))
    for name, value in (colour or {}).items():
        panel = panel.override_by_name(name, [_fixed(value)])
    return panel


def states(
    title: str,
    shows: str,
    *queries: Query,
    blank: str,
    values: Mapping[int, Said] = VERDICT,
    span: int = COLUMNS,
    height: int = 8,
) -> Any:
    """A row for each series, its state over time as a word on its colour; no data is UNKNOWN."""
    return (
        _base(statetimeline.Panel(), title, shows, queries, blank=blank, span=span, height=height)
        .mappings(_mappings(values))
        .thresholds(_thresholds(((None, colours.UNKNOWN),)))
        .show_value(kinds.VisibilityMode.AUTO)
        .merge_values(merge_values=True)
        .row_height(0.9)
        .line_width(0)
        .fill_opacity(90)
        .per_page(40)
        .legend(common.VizLegendOptions().show_legend(show_legend=False))
    )


def rows(
    title: str,
    shows: str,
    query: Query,
    *,
    blank: str,
    columns: Mapping[str, str],
    span: int = COLUMNS,
    height: int = 9,
    unit: str = "none",
    values: Mapping[int, Said] | None = None,
    texts: Mapping[str, str] | None = None,
    links: Sequence[tuple[str, str, str]] = (),
) -> Any:
    """A table of labels and values now. *columns* maps labels (and Value) to headings, in order;
    *links* are (heading, title, address); *texts* colour words.
    """
    panel = (
        _base(table.Panel(), title, shows, (query,), blank=blank, span=span, height=height)
        .unit(unit)
        .mappings(_mappings(values or {}, texts or {}))
        .thresholds(_thresholds(((None, colours.UNKNOWN),)))
        .cell_height(kinds.TableCellHeight.SM)
        .with_transformation(_organised(columns))
    )
    for heading in [columns["verdict"]] if "verdict" in columns else []:
        panel = panel.override_by_name(heading, [_painted()])
    if values:
        panel = panel.override_by_name(columns["Value"], [_painted()])
    for heading, name, url in links:
        link = {"title": name, "url": url, "targetBlank": True}
        panel = panel.override_by_name(heading, [models.DynamicConfigValue("links", [link])])
    return panel


# --- Dashboards ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, from left to right."""

    title: str
    panels: tuple[Any, ...]


def board(
    uid: str,
    title: str,
    text: str,
    rows_of: Iterable[Row],
    *,
    since: str = "now-6h",
    refresh: str = "30s",
    one_node: bool = False,
    variables: Sequence[Any] = (),
) -> models.Dashboard:
    """A whole dashboard. *one_node*: it opens on a single node rather than on all."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["dvfd"])
        .readonly()
        .time(since, "now")
        .timezone("browser")
        .refresh(refresh)
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
    )
    for variable in (*_variables(all_nodes=not one_node), *variables, *_places()):
        made = made.with_variable(variable)
    for annotation in _annotations():
        made = made.annotation(annotation)
    for link in _links():
        made = made.link(link)
    built = made.build()
    built.panels = list(_placed(rows_of))
    return built


def asked(name: str, label: str, query: str, *, everything: bool = True, text: str = "") -> Any:
    """A variable whose values Prometheus knows: several may be chosen."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(text)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NATURAL_ASC)
        .multi(multi=True)
        .include_all(include_all=everything)
        .all_value(".+")
        .regex("")
        .options([])
    )


def _variables(*, all_nodes: bool) -> list[Any]:
    return [
        dashboard.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .regex(""),
        asked(
            "job",
            "Job",
            "label_values(dvfd_build_info, job)",
            text="Prometheus' job. All means every target it has, whether dvfd or not",
        ).current(models.VariableOption(selected=True, text=[JOB], value=[JOB])),
        asked(
            "instance",
            "Instance",
            'label_values(dvfd_build_info{job=~"$job"}, instance)',
            everything=all_nodes,
            text="host:port of a node's dvfd, which is where its page is too",
        ),
    ]


def _places() -> list[Any]:
    """Where links lead: to be set once, when the dashboards are provisioned."""
    return [
        dashboard.CustomVariable("scheme")
        .label("Scheme")
        .description("How browsers reach the nodes' own pages")
        .values("http,https")
        .current(models.VariableOption(selected=True, text="http", value="http")),
        dashboard.TextBoxVariable("runbooks")
        .label("Runbooks")
        .description("Where docs/runbooks is published, without a slash at the end")
        .default_value("https://runbooks.example.org/dvfd"),
    ]


def _annotations() -> list[Any]:
    """What explains a bend in any chart. Alerts from rules; dvfd's own pushes show as failed."""
    several = {
        "Alerts by rule": ('ALERTS{alertname=~"Dvfd.+", alertstate="firing"}', colours.FAIL, False),
        "dvfd raised an alert": (
            'dvfd_alerts_firing{job=~"$job", instance=~"$instance"} > 0',
            colours.FAIL,
            False,
        ),
        "Rank restarted": (
            'increase(dvfd_rank_restarts_total{job=~"$job", instance=~"$instance"}[2m]) > 0',
            colours.WAIVED,
            True,
        ),
        "dvfd restarted": (
            'changes(dvfd_process_start_time_seconds{job=~"$job", instance=~"$instance"}[2m]) > 0',
            colours.UNKNOWN,
            True,
        ),
        "Node booted": (
            'changes(dvfd_node_boot_timestamp_seconds{job=~"$job", instance=~"$instance"}[2m]) > 0',
            colours.UNKNOWN,
            True,
        ),
    }
    return [
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .expr(expr)
        .enable(enable)
        .icon_color(colour)
        for name, (expr, colour, enable) in several.items()
    ]


def _links() -> list[Any]:
    boards_ = (
        dashboard.DashboardLink("Dashboards of dvfd")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["dvfd"])
        .as_dropdown(as_dropdown=True)
        .keep_time(keep_time=True)
        .include_vars(include_vars=True)
    )
    return [
        boards_,
        _address("The node's own page", "${scheme}://${instance}/"),
        _address("Runbooks", "${runbooks}/"),
    ]


def _address(title: str, url: str) -> Any:
    link = dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url)
    return link.icon("external link").target_blank(target_blank=True)


def _placed(rows_of: Iterable[Row]) -> Iterable[Any]:
    """Panels and headings with their numbers and places: lines are filled from the left."""
    numbers, y = count(1), 0
    for row in rows_of:
        heading = dashboard.Row(row.title).id(next(numbers)).build()
        heading.grid_pos = models.GridPos(1, COLUMNS, 0, y)
        yield heading
        x, y, tall = 0, y + 1, 0
        for builder in row.panels:
            panel = builder.build()
            panel.id_val = next(numbers)
            place = panel.grid_pos
            if x + place.w > COLUMNS:
                x, y, tall = 0, y + tall, 0
            panel.grid_pos = models.GridPos(place.h, place.w, x, y)
            x, tall = x + place.w, max(tall, place.h)
            yield panel
        y += tall


# --- Pieces of panels ---------------------------------------------------------------------------


def _base(
    panel: Any,
    title: str,
    shows: str,
    queries: Sequence[Query],
    *,
    blank: str,
    span: int,
    height: int,
) -> Any:
    panel = (
        panel.title(title)
        .description(described(shows, blank))
        .datasource(DATASOURCE)
        .no_value(BLANK)
        .span(span)
        .height(height)
    )
    now = isinstance(panel, stat.Panel | bargauge.Panel | table.Panel)
    as_table = isinstance(panel, table.Panel)
    for number_, query in enumerate(queries):
        panel = panel.with_target(_target(query, number_, now=now, as_table=as_table))
    return panel


def _target(query: Query, number_: int, *, now: bool, as_table: bool) -> Any:
    """Figures ask for now: of a course, they would show the last value there was, however old."""
    target = prometheus.Dataquery().expr(query.expr).ref_id(_ref(number_)).datasource(DATASOURCE)
    target = target.instant() if now else target.range()
    if as_table:
        return target.format(PromQueryFormat.TABLE)
    return target.legend_format(query.legend or "__auto")


def _ref(number_: int) -> str:
    return chr(ord("A") + number_)


def _thresholds(steps: Steps) -> Any:
    each = [models.Threshold(value, colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(each)


def _mappings(values: Mapping[int, Said], texts: Mapping[str, str] | None = None) -> list[Any]:
    """Words and colours of values; no value at all is UNKNOWN wherever it can be drawn."""
    named: dict[str, tuple[str, str]] = {str(k): (v.word, v.colour) for k, v in values.items()}
    named |= {word: (word, colour) for word, colour in (texts or {}).items()}
    options = {
        key: models.ValueMappingResult(text=word, color=colour, index=index)
        for index, (key, (word, colour)) in enumerate(named.items())
    }
    nothing = models.DashboardSpecialValueMapOptions(
        match=models.SpecialValueMatch.NULL_AND_NAN,
        result=models.ValueMappingResult(text=BLANK, color=colours.UNKNOWN, index=len(options)),
    )
    return [*([models.ValueMap(options)] if options else []), models.SpecialValueMap(nothing)]


def _last() -> Any:
    return common.ReduceDataOptions().calcs(["last"]).fields("").values(values=False)


def _legend() -> Any:
    legend = common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.LIST)
    return legend.placement(kinds.LegendPlacement.BOTTOM).show_legend(show_legend=True)


def _look(query: Query, number_: int) -> list[Any]:
    if query.limit:
        dashes = {"fill": "dash", "dash": [6, 4]}
        return [
            _fixed(colours.LIMIT),
            models.DynamicConfigValue("custom.lineStyle", dashes),
            models.DynamicConfigValue("custom.fillOpacity", 0),
        ]
    hue = colours.SERIES[number_ % len(colours.SERIES)]
    return [models.DynamicConfigValue("color", {"mode": "shades", "fixedColor": hue})]


def _fixed(colour: str) -> Any:
    return models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def _painted() -> Any:
    style = {"type": "color-background", "mode": "basic", "applyToRow": False}
    return models.DynamicConfigValue("custom.cellOptions", style)


def _organised(columns: Mapping[str, str]) -> Any:
    """Only these columns, under these headings, in this order."""
    order = {label: index for index, label in enumerate(columns)}
    options = {
        "includeByName": dict.fromkeys(columns, True),
        "indexByName": order,
        "renameByName": dict(columns),
    }
    return models.DataTransformerConfig(id_val="organize", options=options)
