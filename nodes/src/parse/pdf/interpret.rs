//! Runs a page's drawing instructions for the sake of their text alone: where each glyph stands and what it means.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use hayro_font::{
    CMapResolverFn, Font, FontCache, FontGlyph, FontQuery, FontResolverFn, StandardFont, UNITS_PER_EM,
    hayro_cmap::{self, BfString},
    kurbo::{Affine, Point},
};
use hayro_syntax::{
    content::{TypedIter, ops::TypedInstruction},
    object::{Array, Dict, Name, Number, Object, ObjectIdentifier, Stream, String as PdfString},
    page::{Page, Resources},
};

use super::{
    super::{Limit, ParseError, ParseLimits},
    cids::Cids,
    layout::Glyph,
    marked::{Layers, Marks},
};

/// Forms inside forms, and states saved inside states, beyond which a page is not followed.
const FORM_DEPTH_MAX: u32 = 24;
const SAVED_STATES_MAX: usize = 1_024;

/// Annotations that are not part of the page as it is seen: hidden or not shown on screen.
const ANNOTATION_UNSEEN: u32 = 1 << 1 | 1 << 5;

/// Collects the glyphs of pages. One serves all pages of a document, so that fonts are read once.
pub(super) struct Interpreter<'a> {
    fonts: FontCache<'a>,
    font_resolver: FontResolverFn,
    cmap_resolver: CMapResolverFn,
    cids: HashMap<ObjectIdentifier, Option<Rc<Cids>>>,
    forms: HashMap<ObjectIdentifier, Rc<[u8]>>,
    layers: Layers,
    operations_max: u64,
    operations: u64,
    forms_max: u64,
    forms_drawn: u64,
}

/// A font, and what its codes mean where it does not say so itself.
#[derive(Clone)]
struct PageFont<'a> {
    font: Font<'a>,
    cids: Option<Rc<Cids>>,
}

/// What `q` saves and `Q` brings back.
#[derive(Clone)]
struct State<'a> {
    ctm: Affine,
    font: Option<PageFont<'a>>,
    size: f64,
    char_space: f64,
    word_space: f64,
    stretch: f64,
    leading: f64,
    rise: f64,
}

impl State<'_> {
    fn new(ctm: Affine) -> Self {
        Self {
            ctm,
            font: None,
            size: 1.0,
            char_space: 0.0,
            word_space: 0.0,
            stretch: 1.0,
            leading: 0.0,
            rise: 0.0,
        }
    }
}

/// One content stream being run: its own saved states, text matrices and marked content.
struct Run<'a> {
    state: State<'a>,
    saved: Vec<State<'a>>,
    /// Saves beyond the limit: counted, so that each `Q` still meets its `q`.
    unsaved: u64,
    text: Affine,
    line: Affine,
    marks: Marks,
    depth: u32,
}

impl<'a> Run<'a> {
    fn new(state: State<'a>, depth: u32) -> Self {
        Self {
            state,
            saved: Vec::new(),
            unsaved: 0,
            text: Affine::IDENTITY,
            line: Affine::IDENTITY,
            marks: Marks::default(),
            depth,
        }
    }

    fn save(&mut self) {
        if self.saved.len() < SAVED_STATES_MAX {
            self.saved.push(self.state.clone());
        } else {
            self.unsaved += 1;
        }
    }

    fn restore(&mut self) {
        if self.unsaved > 0 {
            self.unsaved -= 1;
        } else if let Some(state) = self.saved.pop() {
            self.state = state;
        }
    }

    fn next_line(&mut self, x: f64, y: f64) {
        self.line *= Affine::translate((x, y));
        self.text = self.line;
    }

    fn set_text_matrix(&mut self, matrix: Affine) {
        self.text = matrix;
        self.line = matrix;
    }
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(limits: &ParseLimits, layers: Layers) -> Self {
        Self {
            fonts: FontCache::new(),
            font_resolver: Arc::new(|query| match query {
                FontQuery::Standard(font) => Some(font.get_font_data()),
                FontQuery::Fallback(query) => Some(query.pick_standard_font().get_font_data()),
            }),
            cmap_resolver: Arc::new(hayro_cmap::load_embedded),
            cids: HashMap::new(),
            forms: HashMap::new(),
            layers,
            operations_max: limits.operations_max,
            operations: 0,
            forms_max: limits.forms_max,
            forms_drawn: 0,
        }
    }

    /// The glyphs of a page, in the order they are drawn: its content, then its annotations.
    pub(super) fn page(&mut self, page: &Page<'a>) -> Result<Vec<Glyph>, ParseError> {
        let ctm = Affine::new(page.initial_transform(true).as_coeffs());
        let mut glyphs = Vec::new();
        let mut run = Run::new(State::new(ctm), 0);
        self.run(page.typed_operations(), page.resources(), &mut run, &mut glyphs)?;
        for annotation in page
            .raw()
            .get::<Array<'a>>("Annots")
            .into_iter()
            .flat_map(|all| all.iter::<Dict<'a>>())
        {
            self.annotation(&annotation, ctm, page.resources(), &mut glyphs)?;
        }
        let (width, height) = page.render_dimensions();
        glyphs.retain(|glyph| glyph.is_on_page(f64::from(width), f64::from(height)));
        Ok(glyphs)
    }

    /// Draws what an annotation looks like (a filled-in field, a note written on the page) where its rectangle is.
    fn annotation(
        &mut self,
        annotation: &Dict<'a>,
        ctm: Affine,
        resources: &Resources<'a>,
        glyphs: &mut Vec<Glyph>,
    ) -> Result<(), ParseError> {
        if annotation.get::<u32>("F").unwrap_or(0) & ANNOTATION_UNSEEN != 0 {
            return Ok(());
        }
        let Some((form, rect)) = appearance(annotation).zip(annotation.get::<[f64; 4]>("Rect")) else {
            return Ok(());
        };
        let matrix = form_matrix(form.dict());
        let bbox = form.dict().get::<[f64; 4]>("BBox").unwrap_or(rect);
        let corner = |x: usize, y: usize| {
            matrix * Point::new(bbox.get(x).copied().unwrap_or(0.0), bbox.get(y).copied().unwrap_or(0.0))
        };
        let corners = [corner(0, 1), corner(2, 1), corner(0, 3), corner(2, 3)];
        let (left, right) = span(corners.map(|p| p.x));
        let (bottom, top) = span(corners.map(|p| p.y));
        let ([x0, y0, x1, y1], scale) = (
            rect,
            |to: f64, from: f64| if from.abs() > 1e-6 { to / from } else { 1.0 },
        );
        let (scale_x, scale_y) = (
            scale((x1 - x0).abs(), right - left),
            scale((y1 - y0).abs(), top - bottom),
        );
        let place = Affine::new([
            scale_x,
            0.0,
            0.0,
            scale_y,
            x0.min(x1) - scale_x * left,
            y0.min(y1) - scale_y * bottom,
        ]);
        self.form(&form, State::new(ctm * place), resources, 1, glyphs)
    }

    fn form(
        &mut self,
        form: &Stream<'a>,
        mut state: State<'a>,
        outer: &Resources<'a>,
        depth: u32,
        glyphs: &mut Vec<Glyph>,
    ) -> Result<(), ParseError> {
        if depth > FORM_DEPTH_MAX || self.layers.hides(form.dict()) {
            return Ok(());
        }
        self.forms_drawn += 1;
        if self.forms_drawn > self.forms_max {
            return Err(ParseError::LimitExceeded(Limit::Operations(self.forms_max)));
        }
        let content = if let Some(content) = self.forms.get(&form.obj_id()) {
            Rc::clone(content)
        } else {
            let Ok(content) = form.decoded_data() else {
                return Ok(());
            };
            let content: Rc<[u8]> = content.into_owned().into();
            self.forms.insert(form.obj_id(), Rc::clone(&content));
            content
        };
        state.ctm *= form_matrix(form.dict());
        let own = form.dict().get::<Dict<'a>>("Resources").map(Resources::new);
        let mut run = Run::new(state, depth);
        self.run(
            TypedIter::new(&content),
            own.as_ref().unwrap_or(outer),
            &mut run,
            glyphs,
        )
    }

    fn run(
        &mut self,
        mut operations: TypedIter<'_>,
        resources: &Resources<'a>,
        run: &mut Run<'a>,
        glyphs: &mut Vec<Glyph>,
    ) -> Result<(), ParseError> {
        use TypedInstruction as Op;
        while let Some(operation) = operations.next() {
            self.count_operation()?;
            match operation {
                Op::SaveState(_) => run.save(),
                Op::RestoreState(_) => run.restore(),
                Op::Transform(m) => run.state.ctm *= affine([m.0, m.1, m.2, m.3, m.4, m.5]),
                Op::BeginText(_) => run.set_text_matrix(Affine::IDENTITY),
                Op::SetTextMatrix(m) => run.set_text_matrix(affine([m.0, m.1, m.2, m.3, m.4, m.5])),
                Op::NextLine(by) => run.next_line(by.0.as_f64(), by.1.as_f64()),
                Op::NextLineAndSetLeading(by) => {
                    run.state.leading = -by.1.as_f64();
                    run.next_line(by.0.as_f64(), by.1.as_f64());
                }
                Op::NextLineUsingLeading(_) => run.next_line(0.0, -run.state.leading),
                Op::TextFont(font) => {
                    run.state.size = font.1.as_f64();
                    run.state.font = self.font(resources.get_font(font.0).as_ref());
                }
                Op::SetGraphicsState(name) => self.graphics_state(resources.get_ext_g_state(name.0), run),
                Op::CharacterSpacing(by) => run.state.char_space = by.0.as_f64(),
                Op::WordSpacing(by) => run.state.word_space = by.0.as_f64(),
                Op::HorizontalScaling(percent) => run.state.stretch = percent.0.as_f64() / 100.0,
                Op::TextLeading(by) => run.state.leading = by.0.as_f64(),
                Op::TextRise(by) => run.state.rise = by.0.as_f64(),
                Op::ShowText(text) => self.show(text.0, run, glyphs)?,
                Op::NextLineAndShowText(text) => {
                    run.next_line(0.0, -run.state.leading);
                    self.show(text.0, run, glyphs)?;
                }
                Op::ShowTextWithParameters(text) => {
                    (run.state.word_space, run.state.char_space) = (text.0.as_f64(), text.1.as_f64());
                    run.next_line(0.0, -run.state.leading);
                    self.show(text.2, run, glyphs)?;
                }
                Op::ShowTexts(parts) => self.show_parts(parts.0, run, glyphs)?,
                Op::XObject(name) => self.draw_form(resources, name.0, run, glyphs)?,
                Op::BeginMarkedContent(_) => run.marks.begin_plain(),
                Op::BeginMarkedContentWithProperties(mark) => {
                    run.marks.begin(mark.0, mark.1, resources, &self.layers, glyphs.len());
                }
                Op::EndMarkedContent(_) => run.marks.end(glyphs),
                _ => {}
            }
        }
        Ok(())
    }

    /// Counts an instruction or a glyph, both of which a small file can have without end.
    fn count_operation(&mut self) -> Result<(), ParseError> {
        self.operations += 1;
        if self.operations > self.operations_max {
            return Err(ParseError::LimitExceeded(Limit::Operations(self.operations_max)));
        }
        Ok(())
    }

    fn draw_form(
        &mut self,
        resources: &Resources<'a>,
        name: &Name<'_>,
        run: &Run<'a>,
        glyphs: &mut Vec<Glyph>,
    ) -> Result<(), ParseError> {
        let form = resources.get_x_object(name).filter(|object| {
            !run.marks.hidden()
                && object
                    .dict()
                    .get::<Name<'_>>("Subtype")
                    .is_some_and(|kind| kind.as_str() == "Form")
        });
        match form {
            Some(form) => self.form(&form, run.state.clone(), resources, run.depth + 1, glyphs),
            None => Ok(()),
        }
    }

    fn graphics_state(&mut self, dict: Option<Dict<'a>>, run: &mut Run<'a>) {
        let Some(font) = dict.and_then(|dict| dict.get::<Array<'a>>("Font")) else {
            return;
        };
        let mut entries = font.iter::<Object<'a>>();
        if let (Some(Object::Dict(font)), Some(Object::Number(size))) = (entries.next(), entries.next()) {
            run.state.font = self.font(Some(&font));
            run.state.size = size.as_f64();
        }
    }

    /// The font of a dictionary; Helvetica where it is missing or cannot be read, as viewers do.
    fn font(&mut self, dict: Option<&Dict<'a>>) -> Option<PageFont<'a>> {
        let own = dict.and_then(|dict| {
            let font = self.fonts.font(dict, &self.font_resolver, &self.cmap_resolver)?;
            let cids = match dict.obj_id() {
                Some(id) => self
                    .cids
                    .entry(id)
                    .or_insert_with(|| Cids::of_font(dict).map(Rc::new))
                    .clone(),
                None => Cids::of_font(dict).map(Rc::new),
            };
            Some(PageFont { font, cids })
        });
        own.or_else(|| {
            let font = self.fonts.standard_font(StandardFont::Helvetica, &self.font_resolver)?;
            Some(PageFont { font, cids: None })
        })
    }

    fn show_parts(&mut self, parts: &Array<'_>, run: &mut Run<'a>, glyphs: &mut Vec<Glyph>) -> Result<(), ParseError> {
        for part in parts.iter::<Object<'_>>() {
            match part {
                Object::Number(by) => {
                    let by = -by.as_f64() / f64::from(UNITS_PER_EM) * run.state.size;
                    let horizontal = run.state.font.as_ref().is_none_or(|own| own.font.is_horizontal());
                    let (x, y) = if horizontal {
                        (by * run.state.stretch, 0.0)
                    } else {
                        (0.0, by)
                    };
                    run.text *= Affine::translate((x, y));
                }
                Object::String(text) => self.show(&text, run, glyphs)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn show(&mut self, text: &PdfString<'_>, run: &mut Run<'a>, glyphs: &mut Vec<Glyph>) -> Result<(), ParseError> {
        if run.state.font.is_none() {
            run.state.font = self.font(None);
        }
        let Some(own) = run.state.font.clone() else {
            return Ok(());
        };
        let font = &own.font;
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            self.count_operation()?;
            let (code, length) = font.read_code(bytes, at);
            at += length.max(1);
            let state = &run.state;
            let advance = font.code_advance(code) / f64::from(UNITS_PER_EM) * state.size;
            let space = state.char_space
                + if code == 32 && length == 1 {
                    state.word_space
                } else {
                    0.0
                };
            let (glyph, next) = if font.is_horizontal() {
                (
                    (advance.x * state.stretch, 0.0),
                    ((advance.x + space) * state.stretch, 0.0),
                )
            } else {
                ((0.0, advance.y), (0.0, advance.y + space))
            };
            if !run.marks.hidden() {
                let place = state.ctm * run.text * Affine::translate((0.0, state.rise));
                let (from, to) = (place * Point::ORIGIN, place * Point::new(glyph.0, glyph.1));
                let height = (place * Point::new(0.0, state.size) - from).hypot();
                let (text, size) = own.meaning(code, length, height, (to - from).hypot());
                glyphs.push(Glyph { text, from, to, size });
            }
            run.text *= Affine::translate(next);
        }
        Ok(())
    }
}

impl PageFont<'_> {
    /// What a code stands for, `None` where the document does not say, and how high its letters are: as high as the
    /// font was set, save where glyphs are drawings in a measure of their own, whose widths then tell.
    fn meaning(&self, code: u32, length: usize, height: f64, width: f64) -> (Option<String>, f64) {
        let (unicode, height) = match self.font.glyph(self.font.map_code(code), code) {
            FontGlyph::Outline(glyph) => (glyph.as_unicode(), height),
            FontGlyph::Type3(glyph) => {
                let unit = glyph.font().matrix().determinant().abs().sqrt();
                let usual = (0.0005..0.002).contains(&unit);
                (
                    glyph.as_unicode(),
                    if usual || width <= 0.0 { height } else { width * 2.0 },
                )
            }
        };
        let text = match unicode {
            Some(BfString::Char(c)) => Some(c.to_string()),
            Some(BfString::String(text)) => Some(text),
            None => self
                .cids
                .as_ref()
                .and_then(|cids| cids.meaning(code, length))
                .or_else(|| {
                    // A font of single bytes that names nothing most likely has letters where everybody has them.
                    let byte = u8::try_from(code)
                        .ok()
                        .filter(|byte| length == 1 && (b' '..=b'~').contains(byte))?;
                    Some(char::from(byte).to_string())
                }),
        };
        (text, height)
    }
}

fn appearance<'a>(annotation: &Dict<'a>) -> Option<Stream<'a>> {
    match annotation.get::<Dict<'a>>("AP")?.get::<Object<'a>>("N")? {
        Object::Stream(form) => Some(form),
        Object::Dict(states) => states.get::<Stream<'a>>(annotation.get::<Name<'a>>("AS")?),
        _ => None,
    }
}

fn form_matrix(form: &Dict<'_>) -> Affine {
    form.get::<[f64; 6]>("Matrix").map_or(Affine::IDENTITY, Affine::new)
}

fn affine(numbers: [Number; 6]) -> Affine {
    Affine::new(numbers.map(|number| number.as_f64()))
}

fn span(values: [f64; 4]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        })
}
