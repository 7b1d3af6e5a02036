//! Analyses as pictures.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use thiserror::Error;

use super::Statistics;
use super::analysis::{self, AnalysisError, Kind};
use crate::picture::{
    Area, Drawing, Drawn, FONT, GREEN, INK, PictureError, PictureFile, RED, room_for,
};

/// Why there is no picture of an analysis.
#[derive(Debug, Error)]
pub enum PlotError {
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    #[error(transparent)]
    Picture(#[from] PictureError),
}

/// Draws an analysis into a file.
pub fn write(statistics: &Statistics, kind: Kind, file: &PictureFile) -> Result<(), PlotError> {
    Ok(file.write(&Chart::of(statistics, kind)?)?)
}

const WIDTH: i32 = 900;
/// Without a legend.
const HEIGHT: i32 = 424;
/// Of the title above the legend.
const TITLE: i32 = 44;
/// Of each row of the legend.
const LEGEND_ROW: i32 = 22;
/// From the sides of the picture to title and legend.
const SIDE: i32 = 14;
/// From a name's square to the name, and from there to the next square.
const SQUARE: i32 = 18;
const BETWEEN: i32 = 22;
/// Of the parts around the curve.
const X_AXIS: i32 = 44;
const Y_AXIS: i32 = 78;
const MARGIN: i32 = 8;
const MARGIN_RIGHT: i32 = 24;
/// Nothing that happened is drawn lower than this.
const LOWEST_BAR: i32 = 2;
const FAINT: RGBColor = RGBColor(225, 225, 225);
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

impl Chart {
    fn of(statistics: &Statistics, kind: Kind) -> Result<Self, AnalysisError> {
        match kind {
            Kind::Throughput => throughput(statistics),
            Kind::Connections => connections(statistics),
            Kind::Hosts => hosts(statistics),
        }
    }

    /// Of what is above the curve.
    fn top(&self) -> i32 {
        TITLE + LEGEND_ROW * legend(self.series.layers()).1
    }

    fn draw_legend<B: DrawingBackend<ErrorType: 'static>>(&self, area: &Area<B>) -> Drawn {
        let text = (FONT, 14).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        let layers = self.series.layers();
        for (layer, (x, row)) in layers.iter().zip(legend(layers).0) {
            let y = TITLE + 4 + LEGEND_ROW * row;
            area.draw(&Rectangle::new([(x, y - 6), (x + 12, y + 6)], layer.colour.filled()))?;
            area.draw_text(&layer.name, &text, (x + SQUARE, y))?;
        }
        Ok(())
    }
}

impl Drawing for Chart {
    fn size(&self) -> (u32, u32) {
        (WIDTH.unsigned_abs(), (HEIGHT - TITLE + self.top()).unsigned_abs())
    }

    fn draw<B: DrawingBackend<ErrorType: 'static>>(&self, area: &Area<B>) -> Drawn {
        let bold = (FONT, 17).into_font().style(FontStyle::Bold).color(&INK);
        area.draw_text(&self.title, &bold, (SIDE, 12))?;
        self.draw_legend(area)?;

        let label = (FONT, 14).into_font().color(&INK);
        let unit = TimeUnit::for_time(self.seconds);
        let length = self.seconds.max(1.0) / unit.seconds;
        let highest = self.series.highest() * 1.05;
        let whole_only = matches!(self.series, Series::Stack(_));
        let mut chart = ChartBuilder::on(area)
            .margin_top(self.top())
            .margin_right(MARGIN_RIGHT)
            .margin_left(MARGIN)
            .margin_bottom(MARGIN)
            .x_label_area_size(X_AXIS)
            .y_label_area_size(Y_AXIS)
            .build_cartesian_2d(0.0..length, 0.0..highest)?;
        chart
            .configure_mesh()
            .x_desc(format!("time [{}]", unit.name))
            .y_desc(self.y_title)
            .x_labels(10)
            .y_labels(6)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&|y| match whole_only && !is_whole(*y) {
                true => String::new(),
                false => short(*y),
            })
            .label_style(label.clone())
            .axis_desc_style(label.clone())
            .axis_style(INK)
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            .draw()?;
        let place = |(time, height): (f64, f64)| (time / unit.seconds, height);
        match &self.series {
            Series::Line(points) => {
                let points: Vec<_> = points.iter().copied().map(place).collect();
                chart.draw_series([PathElement::new(points.clone(), BLUE.stroke_width(2))])?;
                let dots = points.iter().map(|&point| Circle::new(point, 3, BLUE.filled()));
                // Many would only thicken the line.
                chart.draw_series(dots.take(if points.len() <= 60 { 60 } else { 0 }))?;
            }
            Series::Stack(layers) => {
                let lowest = highest * f64::from(LOWEST_BAR) / f64::from(curve_height());
                for bar in stacked(layers, lowest) {
                    let corners = bar.corners.map(place);
                    chart.draw_series([Rectangle::new(corners, bar.colour.filled())])?;
                }
            }
        }
        if self.series.is_empty() {
            let place = (WIDTH / 2, self.top() + curve_height() / 2);
            let style = label.pos(Pos::new(HPos::Center, VPos::Center));
            area.draw_text("nothing to show: the run was too short", &style, place)?;
        }
        Ok(())
    }
}

/// Height of the part in which the curve is.
fn curve_height() -> i32 {
    HEIGHT - TITLE - X_AXIS - MARGIN
}

/// Where each name is, by its column in pixels and its row; and how many rows there are.
fn legend(layers: &[Layer]) -> (Vec<(i32, i32)>, i32) {
    let (mut x, mut row) = (SIDE, 0);
    let mut places = Vec::new();
    for layer in layers {
        let width = SQUARE + room_for(&layer.name) + BETWEEN;
        if x > SIDE && x + width > WIDTH {
            (x, row) = (SIDE, row + 1);
        }
        places.push((x, row));
        x += width;
    }
    (places, if layers.is_empty() { 0 } else { row + 1 })
}

/// What the axis of time counts in.
struct TimeUnit {
    name: &'static str,
    seconds: f64,
}

impl TimeUnit {
    fn for_time(seconds: f64) -> Self {
        match seconds {
            ..=900.0 => Self { name: "s", seconds: 1.0 },
            ..=14_400.0 => Self { name: "min", seconds: 60.0 },
            _ => Self { name: "h", seconds: 3_600.0 },
        }
    }
}

impl Series {
    fn layers(&self) -> &[Layer] {
        match self {
            Series::Line(_) => &[],
            Series::Stack(layers) => layers,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Series::Line(points) => points.is_empty(),
            Series::Stack(layers) => layers.iter().all(|layer| layer.counts.is_empty()),
        }
    }

    /// Above 0 in any case.
    fn highest(&self) -> f64 {
        match self {
            Series::Line(points) => match points.iter().map(|(_, y)| *y).fold(0.0, f64::max) {
                highest if highest > 0.0 => highest,
                _ => 1.0,
            },
            Series::Stack(layers) => {
                stacked(layers, 0.0).map(|bar| bar.corners[1].1).fold(1.0, f64::max)
            }
        }
    }
}

struct Bar {
    corners: [(f64, f64); 2],
    colour: RGBColor,
}

/// The bars of all layers that have any height, each at least of the lowest. Seconds in
/// which all layers stay the same share their bars.
fn stacked(layers: &[Layer], lowest: f64) -> impl Iterator<Item = Bar> {
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
                let height = float(count).max(lowest);
                let corners = [
                    (float(begin as u64), float(floor)),
                    (float(end as u64), float(floor) + height),
                ];
                bars.push(Bar { corners, colour: layer.colour });
            }
            floor += count;
        }
        begin = end;
    }
    bars.into_iter()
}

/// A number on an axis: large ones with a unit, and no more digits than it has.
fn short(number: f64) -> String {
    let size = number.abs();
    let (part, unit) = match size {
        1e12.. => (1e12, "T"),
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        1e4.. => (1e3, "k"),
        _ => (1.0, ""),
    };
    let scaled = number / part;
    // Steps of an axis have one or two digits; what is far behind is the error of adding them up.
    let text = match size {
        1e-3.. => format!("{scaled:.4}"),
        _ => format!("{scaled:.15}"),
    };
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

fn is_whole(number: f64) -> bool {
    (number - number.round()).abs() < 1e-6
}

#[expect(clippy::cast_precision_loss, reason = "2^53 connections are not reached")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests;
