//! Analyses as pictures.

use std::fs;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use thiserror::Error;

use super::Statistics;
use super::analysis::{self, AnalysisError, Kind};

/// Why there is no picture.
#[derive(Debug, Error)]
pub enum PlotError {
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    #[error("write plot {0}: {1}")]
    Write(PathBuf, std::io::Error),
    #[error("write plot {0}: only pictures with the ending .svg can be made")]
    Format(PathBuf),
    #[error("draw plot: {0}")]
    Draw(String),
}

/// Writes the picture of an analysis to an SVG file.
pub fn write(statistics: &Statistics, kind: Kind, path: &Path) -> Result<(), PlotError> {
    if path.extension().is_none_or(|ending| ending != "svg") {
        return Err(PlotError::Format(path.to_owned()));
    }
    let picture = svg(statistics, kind)?;
    fs::write(path, picture).map_err(|error| PlotError::Write(path.to_owned(), error))
}

/// The picture of an analysis.
pub fn svg(statistics: &Statistics, kind: Kind) -> Result<String, PlotError> {
    let chart = match kind {
        Kind::Throughput => throughput(statistics)?,
        Kind::Connections => connections(statistics)?,
        Kind::Hosts => hosts(statistics)?,
    };
    let mut picture = String::new();
    chart.draw(&mut picture).map_err(|error| PlotError::Draw(error.to_string()))?;
    Ok(picture)
}

const SIZE: (u32, u32) = (900, 440);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);
const GREEN: RGBColor = RGBColor(44, 140, 80);
const RED: RGBColor = RGBColor(204, 51, 51);
const AMBER: RGBColor = RGBColor(240, 170, 50);
const BLUE: RGBColor = RGBColor(31, 119, 180);
const GREY: RGBColor = RGBColor(150, 150, 150);

/// Colours of hosts, easily told apart, also by those who see few colours.
const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(240, 228, 66),
    RGBColor(90, 70, 150),
];

/// A chart before it is drawn.
struct Chart {
    title: String,
    y_title: &'static str,
    /// The end of the x axis in seconds.
    seconds: f64,
    series: Series,
}

enum Series {
    Line(Vec<(f64, f64)>),
    /// Heights of each second, one upon the other.
    Stack(Vec<Layer>),
}

struct Layer {
    name: String,
    colour: RGBColor,
    counts: Vec<u64>,
}

fn throughput(statistics: &Statistics) -> Result<Chart, AnalysisError> {
    let points = analysis::throughput(statistics)?;
    Ok(Chart {
        title: title("Throughput", statistics),
        y_title: "KB/s received",
        seconds: statistics.duration.seconds(),
        series: Series::Line(points.iter().map(|point| (point.time, point.rate)).collect()),
    })
}

fn connections(statistics: &Statistics) -> Result<Chart, AnalysisError> {
    let seconds = analysis::connections(statistics)?;
    let layer = |name: &str, colour, count: fn(&analysis::Second) -> u64| Layer {
        name: name.to_owned(),
        colour,
        counts: seconds.iter().map(count).collect(),
    };
    Ok(Chart {
        title: title("Connections", statistics),
        y_title: "connections",
        seconds: statistics.duration.seconds(),
        series: Series::Stack(vec![
            layer("active", GREEN, |second| second.active),
            layer("connecting", AMBER, |second| second.connecting),
            layer("failed", RED, |second| second.failed),
        ]),
    })
}

fn hosts(statistics: &Statistics) -> Result<Chart, AnalysisError> {
    let mut by_size: Vec<_> = analysis::hosts_over_time(statistics)?.into_iter().collect();
    // Colours for the largest, and all of them in the order of their names.
    by_size.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().sum::<u64>()));
    let rest = by_size.split_off(by_size.len().min(PALETTE.len()));
    by_size.sort();
    let mut layers: Vec<Layer> = by_size
        .into_iter()
        .zip(PALETTE)
        .map(|((host, counts), colour)| Layer {
            name: if host.is_empty() { "no answer" } else { host }.to_owned(),
            colour,
            counts,
        })
        .collect();
    if let Some((_, first)) = rest.first() {
        let mut counts = vec![0; first.len()];
        for (_, more) in &rest {
            counts.iter_mut().zip(more).for_each(|(sum, count)| *sum += count);
        }
        layers.push(Layer { name: format!("{} others", rest.len()), colour: GREY, counts });
    }
    Ok(Chart {
        title: title("Connections by host", statistics),
        y_title: "connections",
        seconds: statistics.duration.seconds(),
        series: Series::Stack(layers),
    })
}

fn title(what: &str, statistics: &Statistics) -> String {
    let Statistics { connections, rate, started, totals, .. } = statistics;
    // Without the fraction of the second.
    let started = started.split('.').next().unwrap_or_default().trim_end_matches('Z');
    let failed = match totals.failed_connections {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    format!("{what}: {connections} connections{failed}, {rate} KB/s, started {started}")
}

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Chart {
    fn draw(&self, picture: &mut String) -> Drawn {
        let area = SVGBackend::with_string(picture, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let bold = (FONT, 17).into_font().style(FontStyle::Bold).color(&INK);
        area.draw_text(&self.title, &bold, (14, 12))?;
        let top = match &self.series {
            Series::Line(_) => 44,
            Series::Stack(layers) => legend(&area, layers)?,
        };

        let label = (FONT, 14).into_font().color(&INK);
        let highest = self.series.highest().max(1.0) * 1.05;
        let mut chart = ChartBuilder::on(&area)
            .margin_top(top)
            .margin_right(24)
            .margin_left(8)
            .margin_bottom(6)
            .x_label_area_size(44)
            .y_label_area_size(78)
            .build_cartesian_2d(0.0..self.seconds.max(1.0), 0.0..highest)?;
        chart
            .configure_mesh()
            .x_desc("time [s]")
            .y_desc(self.y_title)
            .x_labels(10)
            .y_labels(6)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&|y| short(*y))
            .label_style(label.clone())
            .axis_desc_style(label)
            .axis_style(INK)
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            .draw()?;
        match &self.series {
            Series::Line(points) => {
                chart.draw_series([PathElement::new(points.clone(), BLUE.stroke_width(2))])?;
                let dots = points.iter().map(|&point| Circle::new(point, 2, BLUE.filled()));
                // Many would only thicken the line.
                chart.draw_series(dots.take(if points.len() <= 60 { 60 } else { 0 }))?;
            }
            Series::Stack(layers) => {
                for bar in stacked(layers) {
                    chart.draw_series([Rectangle::new(bar.corners, bar.colour.filled())])?;
                }
            }
        }
        area.present()?;
        Ok(())
    }
}

impl Series {
    fn highest(&self) -> f64 {
        match self {
            Series::Line(points) => points.iter().map(|(_, y)| *y).fold(0.0, f64::max),
            Series::Stack(layers) => {
                stacked(layers).map(|bar| bar.corners[1].1).fold(0.0, f64::max)
            }
        }
    }
}

struct Bar {
    corners: [(f64, f64); 2],
    colour: RGBColor,
}

/// The bars of all layers that have any height. Seconds in which a layer stays the same
/// share a bar.
fn stacked(layers: &[Layer]) -> impl Iterator<Item = Bar> {
    let seconds = layers.first().map_or(0, |layer| layer.counts.len());
    let column = move |second: usize| layers.iter().map(move |layer| layer.counts[second]);
    let mut bars = Vec::new();
    let mut begin = 0;
    for end in 1..=seconds {
        if end < seconds && column(end).eq(column(begin)) {
            continue;
        }
        let mut floor = 0;
        for (layer, count) in layers.iter().zip(column(begin)) {
            if count > 0 {
                let corners = [
                    (float(begin as u64), float(floor)),
                    (float(end as u64), float(floor + count)),
                ];
                bars.push(Bar { corners, colour: layer.colour });
            }
            floor += count;
        }
        begin = end;
    }
    bars.into_iter()
}

/// Draws names and colours below the title; returns where the chart may begin.
fn legend(area: &Area<'_>, layers: &[Layer]) -> Result<i32, Box<dyn std::error::Error>> {
    const ROW: i32 = 22;
    let text = (FONT, 14).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    let (mut x, mut y) = (14, 48);
    for layer in layers {
        // Nobody knows the width of the viewer's letters.
        let width = 40 + 9 * i32::try_from(layer.name.chars().count()).unwrap_or(0).min(70);
        if x > 14 && x + width > SIZE.0.cast_signed() {
            (x, y) = (14, y + ROW);
        }
        area.draw(&Rectangle::new([(x, y - 6), (x + 12, y + 6)], layer.colour.filled()))?;
        area.draw_text(&layer.name, &text, (x + 18, y))?;
        x += width;
    }
    Ok(y + 18)
}

/// A number on an axis: no fraction where none is needed.
fn short(number: f64) -> String {
    match number.fract() == 0.0 {
        true => format!("{number:.0}"),
        false => format!("{number:.1}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 connections are not reached")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::FOREIGN;
    use super::*;

    fn foreign() -> Statistics {
        serde_json::from_str(FOREIGN).unwrap()
    }

    fn layer(counts: &[u64]) -> Layer {
        Layer { name: String::new(), colour: BLUE, counts: counts.into() }
    }

    #[test]
    fn equal_seconds_share_a_bar() {
        let layers = [layer(&[2, 2, 1]), layer(&[0, 0, 3])];
        let corners: Vec<_> = stacked(&layers).map(|bar| bar.corners).collect();
        assert_eq!(
            corners,
            [[(0.0, 0.0), (2.0, 2.0)], [(2.0, 0.0), (3.0, 1.0)], [(2.0, 1.0), (3.0, 4.0)],]
        );
        assert_eq!(stacked(&[]).count(), 0);
    }

    #[test]
    fn pictures_name_what_they_show() {
        for (kind, words) in [
            (Kind::Throughput, &["KB/s received", "time [s]", "2 connections, 1 failed"][..]),
            (Kind::Connections, &["active", "connecting", "failed", "2021-03-04T10:00:00"]),
            (Kind::Hosts, &["vm-001", "vm-002", "Connections by host"]),
        ] {
            let picture = svg(&foreign(), kind).unwrap();
            assert!(picture.starts_with("<svg"), "{picture}");
            for word in words {
                assert!(picture.contains(word), "{word} in {picture}");
            }
        }
    }

    #[test]
    fn names_of_hosts_cannot_break_the_picture() {
        let mut statistics = foreign();
        statistics.conn_stats[1].host = "<script>&\"".to_owned();
        let picture = svg(&statistics, Kind::Hosts).unwrap();
        assert!(!picture.contains("<script>"), "{picture}");
        assert!(picture.contains("&lt;script&gt;&amp;"), "{picture}");
    }

    #[test]
    fn many_hosts_become_others() {
        let mut statistics = foreign();
        let model = statistics.conn_stats[1].clone();
        statistics.conn_stats = (0..20)
            .map(|number| super::super::ConnStats {
                host: format!("vm-{number:03}"),
                ..model.clone()
            })
            .collect();
        let picture = svg(&statistics, Kind::Hosts).unwrap();
        assert!(picture.contains("12 others"), "{picture}");
    }

    #[test]
    fn only_svg_is_made() {
        let error = write(&foreign(), Kind::Hosts, Path::new("x.png")).unwrap_err();
        assert!(matches!(error, PlotError::Format(_)), "{error}");
        let error = write(&foreign(), Kind::Hosts, Path::new("/nowhere/x.svg")).unwrap_err();
        assert!(error.to_string().starts_with("write plot /nowhere/x.svg: No such file"));
    }
}
