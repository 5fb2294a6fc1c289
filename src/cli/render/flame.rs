//! Draws a flame graph as SVG: how often each function of a guest was found running.

use std::collections::BTreeMap;

use super::escape::html as escaped;
use crate::cli::document::Flame;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 18.0;
/// Narrower than this is not drawn, in pixels.
const LEAST: f64 = 0.4;
/// A letter's width, in pixels.
const LETTER: f64 = 6.6;

/// Calls below one function, merged by name.
#[derive(Default)]
struct Node<'a> {
    looks: u64,
    below: BTreeMap<&'a str, Node<'a>>,
}

/// A flame graph with its own colours, as it is a file of its own, too: width is
/// time, what calls is below what is called, neighbours are in the order of their
/// names.
pub(crate) fn svg(flame: &Flame) -> String {
    let mut root = Node::default();
    for (stack, looks) in &flame.stacks {
        root.looks += looks;
        let mut node = &mut root;
        for name in stack {
            node = node.below.entry(name).or_default();
            node.looks += looks;
        }
    }
    let depth = depth(&root);
    let height = ROW * (depth as f64 + 1.0) + 34.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"flame\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\">\n\
         <title>{title}</title>\n\
         <style>.flame {{ background: #fff }} .f {{ stroke: #fff; stroke-width: .5 }} .l {{ fill: #1c1e21; pointer-events: none }} \
         .h {{ fill: #1c1e21 }} @media (prefers-color-scheme: dark) {{ .flame {{ background: #16181b }} .f {{ stroke: #16181b }} .h {{ fill: #e8e9eb }} }}</style>\n\
         <text class=\"h\" x=\"4\" y=\"16\">{title}</text>\n",
        title = escaped(&flame.title)
    );
    if root.looks > 0 {
        draw(&root, (0.0, height - 6.0), root.looks, &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

fn depth(node: &Node<'_>) -> usize {
    node.below
        .values()
        .map(|below| 1 + depth(below))
        .max()
        .unwrap_or(0)
}

fn draw(node: &Node<'_>, (x, bottom): (f64, f64), all: u64, svg: &mut String) {
    let mut x = x;
    for (name, below) in &node.below {
        let share = below.looks as f64 / all as f64;
        let width = share * WIDTH;
        if width >= LEAST {
            let y = bottom - ROW;
            svg.push_str(&format!(
                "<g><title>{}: {:.1} %, {} looks</title><rect class=\"f\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{:.1}\" rx=\"2\" fill=\"{}\"/>",
                escaped(name),
                share * 100.0,
                below.looks,
                ROW - 1.0,
                color(name)
            ));
            if let Some(label) = label(name, width) {
                svg.push_str(&format!(
                    "<text class=\"l\" x=\"{:.2}\" y=\"{:.1}\">{}</text>",
                    x + 3.0,
                    y + 12.5,
                    escaped(&label)
                ));
            }
            svg.push_str("</g>\n");
            draw(below, (x, y), all, svg);
        }
        x += width;
    }
}

/// As much of a name as there is room for.
fn label(name: &str, width: f64) -> Option<String> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "letters within a drawing"
    )]
    let room = ((width - 6.0) / LETTER).max(0.0) as usize;
    if room < 3 {
        return None;
    }
    if name.chars().count() <= room {
        return Some(name.to_owned());
    }
    let start: String = name.chars().take(room - 1).collect();
    Some(format!("{start}…"))
}

/// Warm, and the same for the same name.
fn color(name: &str) -> String {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("hsl({} 75% {}%)", 18 + hash % 38, 62 + (hash >> 8) % 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flame_is_as_wide_as_its_share() {
        let stack = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let svg = svg(&Flame {
            title: "<m>".to_owned(),
            stacks: vec![
                (stack(&["on_request_headers", "<parse>"]), 2),
                (stack(&["on_request_headers"]), 1),
                (Vec::new(), 0),
            ],
        });
        assert!(
            svg.contains("on_request_headers: 100.0 %, 3 looks"),
            "{svg}"
        );
        assert!(svg.contains("&lt;parse&gt;: 66.7 %, 2 looks"), "{svg}");
        assert!(svg.contains("width=\"800.00\""), "{svg}");
        assert!(!svg.contains("<parse>") && !svg.contains("<m>"), "{svg}");
    }
}
