//! Text in aligned columns.

use std::fmt::Write as _;

/// On which side a column's cells meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// The rows as lines, their cells two spaces apart. Columns beyond `aligns` go to the right. A row
/// that is shorter than the first ends in free text, which does not widen its column.
pub fn aligned(rows: &[Vec<String>], aligns: &[Align]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let is_free = |row: &[String], column| row.len() < columns && column + 1 == row.len();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells =
                rows.iter().filter(|row| !is_free(row, column)).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();

    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let width = widths.get(column).copied().unwrap_or(0);
            let align = aligns.get(column).copied().unwrap_or(Align::Right);
            // Writing to a string cannot fail.
            let _ = match align {
                _ if is_free(row, column) => write!(line, "{gap}{cell}"),
                Align::Left => write!(line, "{gap}{cell:width$}"),
                Align::Right => write!(line, "{gap}{cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_meet_and_free_text_does_not_widen() {
        let rows: Vec<Vec<String>> = [
            &["name", "n", "m"][..],
            &["a", "100", "9"],
            &["longer", "a long remark"],
            &["b", "1", "9973"],
        ]
        .map(|row| row.iter().map(ToString::to_string).collect())
        .into();
        assert_eq!(
            aligned(&rows, &[Align::Left]),
            "name      n     m\na       100     9\nlonger  a long remark\nb         1  9973\n"
        );
        assert_eq!(aligned(&[], &[]), "");
    }
}
