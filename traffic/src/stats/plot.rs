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
mod tests {
    use super::super::tests::FOREIGN;
    use super::super::{ConnStats, Nanos, Sample};
    use super::*;
    use crate::picture::seen::Seen;
    use crate::picture::{self};

    fn foreign() -> Statistics {
        serde_json::from_str(FOREIGN).unwrap()
    }

    fn svg(statistics: &Statistics, kind: Kind) -> String {
        picture::svg(&Chart::of(statistics, kind).unwrap()).unwrap()
    }

    fn png(statistics: &Statistics, kind: Kind) -> Seen {
        Seen::of(&picture::png(&Chart::of(statistics, kind).unwrap()).unwrap())
    }

    fn layer(counts: &[u64]) -> Layer {
        Layer { name: String::new(), colour: BLUE, counts: counts.into() }
    }

    #[test]
    fn equal_seconds_share_a_bar() {
        let layers = [layer(&[2, 2, 1]), layer(&[0, 0, 3])];
        let corners: Vec<_> = stacked(&layers, 0.0).map(|bar| bar.corners).collect();
        assert_eq!(
            corners,
            [[(0.0, 0.0), (2.0, 2.0)], [(2.0, 0.0), (3.0, 1.0)], [(2.0, 1.0), (3.0, 4.0)],]
        );
        assert_eq!(stacked(&[], 0.0).count(), 0);
    }

    #[test]
    fn pictures_name_what_they_show() {
        for (kind, words) in [
            (Kind::Throughput, &["KB/s received", "time [s]", "2 connections, 1 failed"][..]),
            (Kind::Connections, &["active", "connecting", "failed", "2021-03-04T10:00:00"]),
            (Kind::Hosts, &["vm-001", "vm-002", "Connections by host"]),
        ] {
            let picture = svg(&foreign(), kind);
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
        let picture = svg(&statistics, Kind::Hosts);
        assert!(!picture.contains("<script>"), "{picture}");
        assert!(picture.contains("&lt;script&gt;&amp;"), "{picture}");
    }

    #[test]
    fn many_hosts_become_others() {
        let mut statistics = foreign();
        let model = statistics.conn_stats[1].clone();
        statistics.conn_stats = (0..20)
            .map(|number| ConnStats { host: format!("vm-{number:03}"), ..model.clone() })
            .collect();
        let picture = svg(&statistics, Kind::Hosts);
        assert!(picture.contains("12 others"), "{picture}");
    }

    #[test]
    fn an_ending_decides_about_the_kind() {
        for name in ["x.gif", "png", "x.png.txt", ""] {
            let error = PictureFile::named(name).unwrap_err();
            let expected = format!("plot {name}: the ending is neither .svg nor .png");
            assert_eq!(error.to_string(), expected);
        }
        let folder = tempfile::tempdir().unwrap();
        for (name, beginning) in [("x.svg", &b"<svg"[..]), ("x.PNG", b"\x89PNG")] {
            let path = folder.path().join(name);
            write(&foreign(), Kind::Hosts, &PictureFile::named(&path).unwrap()).unwrap();
            assert!(std::fs::read(path).unwrap().starts_with(beginning));
        }
        let nowhere = PictureFile::named("/nowhere/x.svg").unwrap();
        let error = write(&foreign(), Kind::Hosts, &nowhere).unwrap_err();
        assert!(error.to_string().starts_with("write plot /nowhere/x.svg: No such file"));
    }

    const SECOND: u64 = 1_000_000_000;

    /// Received packets of 1 KB each second.
    fn with_samples(received: &[u64]) -> Statistics {
        let sample = |(second, &received): (u64, &u64)| Sample {
            time: Nanos(second * SECOND),
            received,
            ..Sample::default()
        };
        Statistics {
            packet_size: 1_024,
            duration: Nanos((received.len() as u64).saturating_sub(1) * SECOND),
            samples: (0..).zip(received).map(sample).collect(),
            ..Statistics::default()
        }
    }

    /// The row of a height in a picture without a legend.
    fn row(height: f64, highest: f64) -> f64 {
        f64::from(HEIGHT - X_AXIS - MARGIN) - height / (highest * 1.05) * f64::from(curve_height())
    }

    #[test]
    fn the_curve_is_where_its_values_are() {
        // 100 KB/s for 10 s, then 300 for 10 s.
        let received: Vec<u64> =
            (0..=10).map(|s| s * 100).chain((1..=10).map(|s| 1_000 + s * 300)).collect();
        let seen = png(&with_samples(&received), Kind::Throughput);
        assert_eq!(seen.size, (900, 424));
        let width = WIDTH - MARGIN - Y_AXIS - MARGIN_RIGHT;
        for (second, value) in [(3, 100.0), (8, 100.0), (13, 300.0), (18, 300.0)] {
            let x = (MARGIN + Y_AXIS + width * second / 20).unsigned_abs();
            let colour = <[u8; 3]>::from(BLUE.rgb());
            let rows: Vec<u32> = (0..seen.size.1).filter(|&y| seen.at(x, y) == colour).collect();
            let expected = row(value, 300.0);
            assert!(!rows.is_empty(), "nothing at {second} s");
            for y in rows {
                assert!(
                    (f64::from(y) - expected).abs() <= 4.0,
                    "{y} at {second} s, not {expected}"
                );
            }
        }
    }

    #[test]
    fn bars_have_their_heights_and_colours() {
        let connection = |ended: u64, err: &str| ConnStats {
            connect: Nanos(1),
            ended: Nanos(ended * SECOND),
            err: err.to_owned(),
            ..ConnStats::default()
        };
        // 60 to the end; 40 that failed in the sixth second.
        let conn_stats = (0..100).map(|n| match n < 60 {
            true => connection(10, ""),
            false => ConnStats { ended: Nanos(5 * SECOND + 1), ..connection(0, "reset") },
        });
        let statistics = Statistics {
            duration: Nanos(10 * SECOND),
            conn_stats: conn_stats.collect(),
            ..Statistics::default()
        };
        let seen = png(&statistics, Kind::Connections);
        assert_eq!(seen.size, (900, 446));
        let at = |second: i32, height: f64| {
            let width = WIDTH - MARGIN - Y_AXIS - MARGIN_RIGHT;
            let x = MARGIN + Y_AXIS + width * (2 * second + 1) / 20;
            let bottom = 446 - X_AXIS - MARGIN;
            let y = f64::from(bottom) - height / 105.0 * f64::from(curve_height());
            seen.at(x.unsigned_abs(), (0..446).find(|&row| f64::from(row) >= y).unwrap())
        };
        let [green, red, white] = [GREEN, RED, WHITE].map(|colour| <[u8; 3]>::from(colour.rgb()));
        assert_eq!([at(2, 20.0), at(2, 97.0), at(2, 103.0)], [green, green, white]);
        assert_eq!([at(5, 20.0), at(5, 57.0), at(5, 63.0), at(5, 97.0)], [green, green, red, red]);
        assert_eq!([at(8, 20.0), at(8, 57.0), at(8, 63.0)], [green, green, white]);
    }

    #[test]
    fn one_failure_among_many_is_seen() {
        let layers = [layer(&[100_000]), layer(&[1])];
        let bars: Vec<_> = stacked(&layers, 500.0).map(|bar| bar.corners).collect();
        assert_eq!(bars[1], [(0.0, 100_000.0), (1.0, 100_500.0)]);
    }

    #[test]
    fn a_run_that_was_too_short_says_so() {
        for samples in [&[0][..], &[0, 5]] {
            let picture = svg(&with_samples(samples), Kind::Throughput);
            assert_eq!(picture.contains("nothing to show"), samples.len() == 1, "{picture}");
        }
        let short = Statistics { duration: Nanos(SECOND / 2), ..foreign() };
        for kind in [Kind::Connections, Kind::Hosts] {
            assert!(svg(&short, kind).contains("nothing to show"));
        }
    }

    #[test]
    fn numbers_on_axes_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (0.1 + 0.2, "0.3"),
            (2.5, "2.5"),
            (9_999.0, "9999"),
            (20_000.0, "20k"),
            (1_500_000.0, "1.5M"),
            (2e9, "2G"),
            (3e15, "3000T"),
            (0.000_02, "0.00002"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn long_names_make_the_legend_and_the_picture_higher() {
        let mut statistics = foreign();
        let model = statistics.conn_stats[1].clone();
        let named = |n| ConnStats { host: format!("{n}{}", "x".repeat(60)), ..model.clone() };
        statistics.conn_stats = (0..8).map(named).collect();
        let (places, rows) = legend(hosts(&statistics).unwrap().series.layers());
        assert_eq!((rows, places[7]), (8, (SIDE, 7)));
        assert_eq!(png(&statistics, Kind::Hosts).size, (900, 424 + 8 * 22));
    }
}
