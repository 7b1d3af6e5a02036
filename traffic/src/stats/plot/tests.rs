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
            assert!((f64::from(y) - expected).abs() <= 4.0, "{y} at {second} s, not {expected}");
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
