//! Line plots as SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// A line with its name.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// From left to right, at whole numbers.
    pub points: Vec<(u32, f64)>,
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
    let (left, right) = (points().map(|p| p.0).min().unwrap_or(0), points().map(|p| p.0).max().unwrap_or(0));
    let top = points().map(|p| p.1).fold(0.0, f64::max);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (plot, legend) = root.split_horizontally(LEGEND);
    let mut chart = ChartBuilder::on(&plot)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d(left..right.max(left + 1), 0.0..(top * 1.05).max(1e-9))?;
    // A line of the mesh would lie right beside each axis.
    let mut mesh = chart.configure_mesh();
    mesh.disable_mesh().x_desc(across).y_desc(up).x_labels(10);
    mesh.y_label_formatter(&|value| format!("{}", (value * 1e6).round() / 1e6)).draw()?;
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
        let line = |name: &str, up: f64| Line { name: name.to_owned(), points: vec![(1, up), (2, 2.0 * up)] };
        let svg = lines("title", "across", "up", &[line("first", 1.0), line("second <&>", 3.0)]).expect("drawn");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["title", "across", "up", "first", "second &lt;&amp;&gt;"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(lines("nothing", "", "", &[]).is_ok());
    }

    #[test]
    fn axes_are_drawn_once_and_labelled_at_whole_numbers() {
        let line = Line { name: "a".to_owned(), points: vec![(1, 10.0), (2, 30.0), (3, 20.0)] };
        let svg = lines("title", "across", "up", &[line]).expect("drawn");
        let texts: Vec<&str> = svg.lines().filter(|line| line.parse::<f64>().is_ok()).collect();
        assert_eq!(texts, ["0", "5", "10", "15", "20", "25", "30", "1", "2", "3"]);
        assert!(!svg.contains("<line"), "no mesh: {svg}");
        // Of the axes one is upright and one flat; every other path of black is a tick of one label.
        assert_eq!(svg.matches("<polyline").count(), 2 + texts.len() + 2, "axes, ticks, the line and its sign: {svg}");
    }
}
