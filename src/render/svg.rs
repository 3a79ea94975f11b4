//! A picture of a run, for the incident report.

use std::io::Write;

use anyhow::{Context, Result};
use plotters::coord::{CoordTranslate, Shift};
use plotters::prelude::*;

use crate::repro::{Latency, Moment, Report};
use crate::words::{count, counted, latency, rate};

const SIZE: (u32, u32) = (960, 540);

const PAPER: RGBColor = RGBColor(255, 255, 255);
const INK: RGBColor = RGBColor(34, 34, 34);
const GRID: RGBColor = RGBColor(221, 221, 221);
const MEDIAN: RGBColor = RGBColor(31, 96, 196);
const SLOWEST: RGBColor = RGBColor(119, 170, 238);
const PORTS: RGBColor = RGBColor(178, 90, 0);
const LIMIT: RGBColor = RGBColor(200, 30, 45);
const CLIFF: RGBColor = RGBColor(126, 58, 168);

/// The same colours on dark paper.
const IN_THE_DARK: [(RGBColor, RGBColor); 8] = [
    (PAPER, RGBColor(22, 24, 28)),
    (INK, RGBColor(225, 225, 225)),
    (GRID, RGBColor(62, 66, 72)),
    (MEDIAN, RGBColor(110, 168, 255)),
    (SLOWEST, RGBColor(62, 100, 160)),
    (PORTS, RGBColor(255, 170, 80)),
    (LIMIT, RGBColor(255, 110, 120)),
    (CLIFF, RGBColor(200, 150, 240)),
];

/// Draws connect() latency and ports in use against time, with the limit and the moment when the
/// fast ports were spent. It is in ASCII, so that it is the same wherever it goes.
///
/// # Errors
/// When `out` cannot be written.
pub fn repro(report: &Report, mut out: impl Write) -> Result<()> {
    let mut svg = String::new();
    draw(report, &mut svg).context("drawing the picture")?;
    for letter in with_dark_style(&svg).chars() {
        if letter.is_ascii() {
            out.write_all(&[letter as u8])?;
        } else {
            write!(out, "&#{};", u32::from(letter))?;
        }
    }
    out.flush()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(report: &Report, svg: &mut String) -> Result<()> {
    let paper = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    paper.fill(&PAPER)?;
    let error = match &report.error {
        None => "no error".to_owned(),
        Some(error) => error
            .errno
            .map_or_else(|| error.text.clone(), |errno| format!("errno {errno}")),
    };
    let turns = match report.checkouts {
        Some(checkouts) => counted(checkouts, "checkout"),
        None => counted(report.connections, "connection"),
    };
    let title = format!("{turns} to {}: {error}", report.target);
    let paper = paper.titled(&title, text(20))?;
    let (upper, lower) = paper.split_vertically(SIZE.1 / 2 - 10);
    draw_latency(report, &upper)?;
    draw_ports(report, &lower)?;
    paper.present()?;
    Ok(())
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Time at the right end of both charts.
fn end(report: &Report) -> f64 {
    report.seconds.max(0.001)
}

fn draw_latency(report: &Report, area: &Area<'_>) -> Result<()> {
    const FASTEST: f64 = 10.0;
    let moments = &report.timeline;
    let latencies = moments
        .iter()
        .filter_map(|moment| moment.connect_latency_us);
    #[expect(clippy::cast_precision_loss)] // Microseconds of a minute at most.
    let slowest = latencies.map(|latency| latency.p99).max().unwrap_or(0) as f64 * 1.5;
    let slowest = slowest.max(FASTEST * 10.0);
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(28)
        .x_label_area_size(24)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..end(report), (FASTEST..slowest).log_scale())?;
    chart
        .configure_mesh()
        .y_desc(if report.checkouts.is_some() {
            "checkout"
        } else {
            "connect()"
        })
        .y_labels(4)
        .y_label_formatter(&|microseconds: &f64| microseconds_as_text(*microseconds))
        .x_label_formatter(&|seconds| format!("{seconds:.1} s"))
        .label_style(text(13))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(PAPER)
        .draw()?;
    for (name, colour, points) in [
        ("p99", SLOWEST, points(moments, |latency| latency.p99)),
        ("p50", MEDIAN, points(moments, |latency| latency.p50)),
    ] {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(key(colour));
    }
    if let Some(cliff) = report.cliff {
        let at = cliff.seconds.as_secs_f64();
        chart
            .draw_series(LineSeries::new(
                [(at, FASTEST), (at, slowest)],
                CLIFF.stroke_width(2),
            ))?
            .label(format!(
                "fast ports spent after {}",
                count(cliff.connections)
            ))
            .legend(key(CLIFF));
    }
    draw_legend(&mut chart)
}

fn draw_ports(report: &Report, area: &Area<'_>) -> Result<()> {
    let used: Vec<_> = report
        .timeline
        .iter()
        .filter_map(|moment| {
            let ports = f64::from(moment.ports_in_use?);
            Some((moment.seconds.as_secs_f64(), ports))
        })
        .collect();
    let limit = report.usable_ports.map(f64::from);
    let most = used.iter().map(|(_, ports)| *ports).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(28)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..end(report), 0.0..most.max(limit.unwrap_or(0.0)) * 1.15)?;
    chart
        .configure_mesh()
        .y_desc("ports in use")
        .x_desc(format!("seconds; {}/s in all", rate(report.rate)))
        .y_label_formatter(&|ports| rate(*ports).trim_end_matches(".0").to_owned())
        .x_label_formatter(&|seconds| format!("{seconds:.1}"))
        .label_style(text(13))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(PAPER)
        .draw()?;
    chart
        .draw_series(LineSeries::new(used, PORTS.stroke_width(2)))?
        .label("ports in use")
        .legend(key(PORTS));
    if let (Some(limit), Some(ports)) = (limit, report.usable_ports) {
        let line = [(0.0, limit), (end(report), limit)];
        chart
            .draw_series(LineSeries::new(line, LIMIT.stroke_width(2)))?
            .label(format!("limit: {} ports", count(ports)))
            .legend(key(LIMIT));
    }
    draw_legend(&mut chart)
}

fn draw_legend<'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, C>,
) -> Result<()> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(PAPER)
        .border_style(GRID)
        .label_font(text(13))
        .draw()?;
    Ok(())
}

/// A line's sample in the legend.
fn key(colour: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
}

fn points(moments: &[Moment], part: fn(Latency) -> u64) -> Vec<(f64, f64)> {
    let point = |moment: &Moment| {
        #[expect(clippy::cast_precision_loss)] // Microseconds of a minute at most.
        let microseconds = part(moment.connect_latency_us?).max(1) as f64;
        Some((moment.seconds.as_secs_f64(), microseconds))
    };
    moments.iter().filter_map(point).collect()
}

fn microseconds_as_text(microseconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // A label of the axis: 10 and up.
    latency(microseconds as u64)
}

/// Where the reader's screen is dark, the same elements take the other colours.
fn with_dark_style(svg: &str) -> String {
    let hex = |RGBColor(red, green, blue): RGBColor| format!("#{red:02X}{green:02X}{blue:02X}");
    let rules: String = IN_THE_DARK
        .into_iter()
        .flat_map(|(light, dark)| {
            let (light, dark) = (hex(light), hex(dark));
            ["fill", "stroke"].map(|what| format!("[{what}=\"{light}\"]{{{what}:{dark}}}"))
        })
        .collect();
    let style = format!("<style>@media (prefers-color-scheme: dark){{{rules}}}</style>");
    match svg
        .find("<svg")
        .and_then(|start| Some(start + svg[start..].find('>')? + 1))
    {
        Some(inside) => format!("{}\n{style}{}", &svg[..inside], &svg[inside..]),
        None => svg.to_owned(),
    }
}
