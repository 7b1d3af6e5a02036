//! Results as tables, for a terminal or for a page.

use super::results::{CaseResults, Relation, Results, Row};
use crate::report::{Spread, markdown_table, print_table};

/// What tables look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    Text,
    /// Markdown.
    Markdown,
}

/// Prints all of it.
pub fn print(results: &Results, format: Format) {
    println!("{}", results.conditions);
    for case in &results.cases {
        let (heading, rows) = table(case);
        let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
        match format {
            Format::Text => {
                println!("\n{}: {}", case.name, case.what);
                print_table(&heading, &rows);
            }
            Format::Markdown => {
                println!("\n### {}\n\n{}\n", case.name, case.what);
                print!("{}", markdown_table(&heading, &rows));
            }
        }
        for note in &case.notes {
            match format {
                Format::Text => println!("  note: {note}"),
                Format::Markdown => println!("\nNote: {note}"),
            }
        }
    }
}

/// Heading and rows: each figure's median, smallest and largest.
fn table(case: &CaseResults) -> (Vec<String>, Vec<Vec<String>>) {
    let comparisons = case.made_comparisons();
    let columns = case.columns.iter().map(|column| column.heading.clone());
    let compared = comparisons.iter().map(|comparison| comparison.heading.clone());
    let heading = std::iter::once(String::new()).chain(columns).chain(compared).collect();
    let row = |row: &Row| {
        let figures =
            case.columns.iter().map(|column| cell(row.spread(&column.key), column.decimals));
        let compared = comparisons.iter().map(|comparison| {
            let column = case.columns.iter().find(|column| column.key == comparison.key);
            let decimals = match comparison.relation {
                Relation::Ratio => 2,
                Relation::Difference => column.map_or(2, |column| column.decimals),
            };
            cell(case.compared(row, comparison), decimals)
        });
        std::iter::once(row.title()).chain(figures).chain(compared).collect()
    };
    (heading, case.rows.iter().map(row).collect())
}

fn cell(spread: Option<Spread>, decimals: usize) -> String {
    let Some(Spread { median, min, max }) = spread else { return "–".into() };
    let [median, min, max] = [median, min, max].map(|figure| grouped(figure, decimals));
    if min == max { median } else { format!("{median} ({min}–{max})") }
}

/// With commas between groups of three digits.
pub fn grouped(figure: f64, decimals: usize) -> String {
    let plain = format!("{figure:.decimals$}");
    // What rounds to zero has no sign.
    let (sign, plain) = match plain.strip_prefix('-') {
        Some(rest) if rest.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) => ("-", rest),
        Some(rest) => ("", rest),
        None => ("", plain.as_str()),
    };
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let mut text = sign.to_string();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::results::tests::case;

    #[test]
    fn numbers_are_grouped() {
        for (figure, decimals, text) in [
            (0.0, 0, "0"),
            (999.0, 0, "999"),
            (1000.0, 0, "1,000"),
            (1_234_567.891, 2, "1,234,567.89"),
            (-12_345.6, 1, "-12,345.6"),
            (-0.001, 2, "0.00"),
        ] {
            assert_eq!(grouped(figure, decimals), text);
        }
    }

    #[test]
    fn a_table_has_figures_and_what_follows_from_them() {
        let (heading, rows) = table(&case());
        assert_eq!(heading, ["", "µs/packet", "CPU / peer", "CPU − peer"]);
        assert_eq!(
            rows[0],
            ["lb, a", "2.00 (1.00–3.00)", "0.45 (0.40–0.50)", "-2.00 (-3.00–-1.00)"]
        );
        assert_eq!(rows[1], ["lb, b", "1.00", "–", "1.00"]);
        assert_eq!(rows[2], ["peer, a", "3.50 (2.00–5.00)", "–", "–"]);
    }
}
