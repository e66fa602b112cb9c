//! Plots as SVG, by hand: bars of medians on a logarithmic scale. They bring their own colours
//! for light and dark.

use std::fmt::Write;
use std::path::Path;

use watchkeep::Durability;

use crate::Result;
use crate::plan::{Cell, Workload, durability_name};
use crate::run::Results;
use crate::samples::median;

use super::number::{Unit, show};

const STYLE: &str = "text{font:12px sans-serif;fill:#24292f}.title{font-weight:bold}.quiet{fill:#57606a}\
     .bar{fill:#8c959f}.ours{fill:#1a7f37;stroke:#1a7f37}.axis{stroke:#d0d7de}\
     @media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}.bar{fill:#656c76}\
     .ours{fill:#3fb950;stroke:#3fb950}.axis{stroke:#3d444d}}";
const WIDTH: f64 = 720.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 110.0;
const ROW: f64 = 18.0;
const TOP: f64 = 30.0;

/// A plot of a workload: which metric, and what it is called.
struct Plot {
    workload: Workload,
    metric: &'static str,
    unit: Unit,
    title: &'static str,
    better: &'static str,
}

const MORE: &str = "longer is better";
const LESS: &str = "shorter is better";
const PLOTS: &[Plot] = &[
    Plot {
        workload: Workload::Set,
        metric: "rate",
        unit: Unit::Rate,
        title: "sets/s by threads",
        better: MORE,
    },
    Plot {
        workload: Workload::Get,
        metric: "rate",
        unit: Unit::Rate,
        title: "gets/s by threads",
        better: MORE,
    },
    Plot {
        workload: Workload::GetZipf,
        metric: "rate",
        unit: Unit::Rate,
        title: "gets/s by threads, Zipf",
        better: MORE,
    },
    Plot {
        workload: Workload::Latency,
        metric: "p50",
        unit: Unit::Time,
        title: "set to event, p50",
        better: LESS,
    },
    Plot {
        workload: Workload::FanOut,
        metric: "event",
        unit: Unit::Time,
        title: "send and receive of an event, by watchers",
        better: LESS,
    },
    Plot {
        workload: Workload::Selectivity,
        metric: "set",
        unit: Unit::Time,
        title: "set that one watcher matches, by watchers",
        better: LESS,
    },
    Plot {
        workload: Workload::ImportSorted,
        metric: "rate",
        unit: Unit::Rate,
        title: "sorted import, entries/s",
        better: MORE,
    },
    Plot {
        workload: Workload::ImportRandom,
        metric: "rate",
        unit: Unit::Rate,
        title: "random import, entries/s",
        better: MORE,
    },
    Plot {
        workload: Workload::Growth,
        metric: "get",
        unit: Unit::Time,
        title: "get p50 by entries",
        better: LESS,
    },
    Plot {
        workload: Workload::Growth,
        metric: "set",
        unit: Unit::Time,
        title: "set p50 by entries",
        better: LESS,
    },
];

/// Writes the plots of a workload into the report's folder of plots; the Markdown that shows them.
pub(super) fn plots(results: &Results, workload: Workload, folder: &Path) -> Result<String> {
    let mut shown = String::new();
    for plot in PLOTS.iter().filter(|plot| plot.workload == workload) {
        for durability in [Durability::Full, Durability::Relaxed] {
            let alike = |cell: &&Cell| cell.workload == workload && cell.durability == durability;
            let bars: Vec<Bar> = results
                .cells
                .iter()
                .filter(alike)
                .filter_map(|cell| Bar::of(results, cell, plot.metric))
                .collect();
            if bars.is_empty() {
                continue;
            }
            let name = format!("{}-{}-{}.svg", workload.name(), plot.metric, durability_name(durability));
            let title = format!("{}, {}", plot.title, durability_name(durability));
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join(&name), draw(&title, plot, &bars)?)
                .map_err(|error| format!("the plot {name} cannot be written: {error}"))?;
            let place = folder.file_name().unwrap_or_default().to_string_lossy();
            write!(shown, "\n![{title}]({place}/{name})\n")?;
        }
    }
    Ok(shown)
}

struct Bar {
    size: usize,
    name: &'static str,
    median: f64,
    least: f64,
    most: f64,
}

impl Bar {
    /// None where there is nothing above zero to be seen.
    fn of(results: &Results, cell: &Cell, metric: &str) -> Option<Bar> {
        let outcomes = results.outcomes.get(&cell.name())?;
        let values: Vec<f64> =
            outcomes.iter().map(|outcome| outcome.metrics.get(metric).copied()).collect::<Option<_>>()?;
        let least = values.iter().copied().min_by(f64::total_cmp)?;
        let most = values.iter().copied().max_by(f64::total_cmp)?;
        let bar = Bar { size: cell.size, name: cell.contender.name(), median: median(&values), least, most };
        (least > 0.0).then_some(bar)
    }
}

/// Bars from the next power of ten below all, so that their ends and not their lengths are to be compared.
fn draw(title: &str, plot: &Plot, bars: &[Bar]) -> Result<String> {
    let least = bars.iter().map(|bar| bar.least).fold(f64::INFINITY, f64::min);
    let most = bars.iter().map(|bar| bar.most).fold(0.0, f64::max);
    let (from, to) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
    let x = |value: f64| LEFT + (value.log10() - from) / (to - from) * (WIDTH - LEFT - RIGHT);
    let groups = bars.windows(2).filter(|pair| matches!(pair, [a, b] if a.size != b.size)).count();
    let height = TOP + ROW * (bars.len() as f64 + groups as f64 * 0.5) + 26.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\
         <title>{title}</title><style>{STYLE}</style>\n<text class=\"title\" x=\"8\" y=\"18\">{title}</text>\n"
    );
    let (mut power, mut y) = (from, TOP);
    while power <= to {
        let at = x(10_f64.powf(power));
        writeln!(
            svg,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/><text class=\"quiet\" \
             x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height - 22.0,
            height - 8.0,
            show(10_f64.powf(power), plot.unit)
        )?;
        power += 1.0;
    }
    let mut size = None;
    for bar in bars {
        if size.is_some_and(|size| size != bar.size) {
            y += ROW / 2.0;
        }
        let first = size != Some(bar.size);
        size = Some(bar.size);
        let class = if bar.name.starts_with("watchkeep") { "ours" } else { "bar" };
        let (middle, low, high) = (x(bar.median), x(bar.least), x(bar.most));
        if first {
            writeln!(svg, "<text class=\"quiet\" x=\"8\" y=\"{:.1}\">{}</text>", y + 13.0, bar.size)?;
        }
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect class=\"{class}\" x=\"{LEFT}\" \
             y=\"{:.1}\" width=\"{:.1}\" height=\"12\"/><line class=\"axis\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{:.1}\" \
             y2=\"{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 6.0,
            y + 13.0,
            bar.name,
            y + 3.0,
            middle - LEFT,
            y + 9.0,
            y + 9.0,
            high.max(middle) + 5.0,
            y + 13.0,
            show(bar.median, plot.unit)
        )?;
        y += ROW;
    }
    writeln!(
        svg,
        "<text class=\"quiet\" x=\"{:.0}\" y=\"18\" text-anchor=\"end\">logarithmic; {}; the line is from the least to \
         the most</text>\n</svg>",
        WIDTH - 8.0,
        plot.better
    )?;
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_lie_inside_of_the_picture() -> Result<()> {
        let bar = |size, name, median| Bar { size, name, median, least: median * 0.9, most: median * 1.1 };
        let plot = PLOTS.first().ok_or("no plot")?;
        let svg = draw("sets", plot, &[bar(1, "watchkeep", 4_000.0), bar(16, "other", 95_000.0)])?;
        assert!(svg.contains("4,000") && svg.contains("95,000") && svg.contains("class=\"ours\""), "{svg}");
        assert!(svg.contains("prefers-color-scheme:dark"), "{svg}");
        let widths = svg.split("width=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok());
        for width in widths {
            assert!((0.0..=WIDTH - LEFT - RIGHT).contains(&width), "{width}");
        }
        Ok(())
    }
}
