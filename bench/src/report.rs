//! Figures with their spread, and tables of them.

/// Middle, smallest and largest of several measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the measurements are below.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one measurement.
    pub fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or(f64::NAN);
        let last = all.len().saturating_sub(1);
        let median = (at(last / 2) + at(all.len() / 2)) / 2.0;
        Spread { median, min: at(0), max: at(last) }
    }
}

/// Prints rows under a heading, the first column to the left, the others to the right.
pub fn print_table(heading: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heading.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .enumerate()
            .map(|(column, cell)| match column {
                0 => format!("{cell:<width$}", width = width(0)),
                _ => format!("{cell:>width$}", width = width(column)),
            })
            .collect();
        println!("  {}", padded.join("  "));
    };
    line(heading.to_vec());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}

/// The same as a table in Markdown.
pub fn markdown_table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|---|{}\n", "---:|".repeat(heading.len().saturating_sub(1)));
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    [line(heading.to_vec()), rule].into_iter().chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_in_markdown() {
        let rows = [vec!["lb".into(), "1.00".into(), "–".into()]];
        let expected = "|  | CPU | loss |\n|---|---:|---:|\n| lb | 1.00 | – |\n";
        assert_eq!(markdown_table(&["", "CPU", "loss"], &rows), expected);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(odd, Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert!(Spread::of(Vec::new()).median.is_nan());
    }
}
