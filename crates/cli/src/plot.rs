//! Line plots as SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// A line with its name.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (860, 480);
/// Where the legend begins.
const LEGEND: u32 = 670;
/// Height of a line of it.
const ROW: i32 = 20;

/// Draws lines with a legend beside them; the axis of values begins at 0.
pub fn lines(title: &str, across: &str, up: &str, lines: &[Line]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, [title, across, up], lines).map_err(|error| anyhow!("drawing: {error}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, [title, across, up]: [&str; 3], lines: &[Line]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let bound = |of: fn(f64, f64) -> f64, start: f64, axis: fn(&(f64, f64)) -> f64| points().map(axis).fold(start, of);
    let (left, right) = (bound(f64::min, f64::MAX, |p| p.0), bound(f64::max, f64::MIN, |p| p.0));
    let (left, right) = if left < right { (left, right) } else { (0.0, 1.0) };
    let top = bound(f64::max, 0.0, |p| p.1);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (plot, legend) = root.split_horizontally(LEGEND);
    let number = |value: &f64| format!("{}", (value * 1e6).round() / 1e6);
    let mut chart = ChartBuilder::on(&plot)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d(left..right, 0.0..(top * 1.05).max(1e-9))?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(across).y_desc(up).x_labels(10).light_line_style(WHITE);
    mesh.x_label_formatter(&number).y_label_formatter(&number).draw()?;
    for (n, line) in lines.iter().enumerate() {
        let colour = Palette99::pick(n).stroke_width(2);
        chart.draw_series(LineSeries::new(line.points.iter().copied(), colour))?;
        chart.draw_series(line.points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
        let y = 50 + ROW * n as i32;
        legend.draw(&PathElement::new([(4, y), (24, y)], colour))?;
        legend.draw(&Text::new(line.name.clone(), (30, y - 7), ("sans-serif", 14)))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_drawn_and_named() {
        let line = |name: &str, up: f64| Line { name: name.to_owned(), points: vec![(1.0, up), (2.0, 2.0 * up)] };
        let svg = lines("title", "across", "up", &[line("first", 1.0), line("second <&>", 3.0)]).expect("drawn");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["title", "across", "up", "first", "second &lt;&amp;&gt;"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(lines("nothing", "", "", &[]).is_ok());
    }
}
