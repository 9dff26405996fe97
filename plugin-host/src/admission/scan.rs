//! One pass over the sections of an upload, with the components that surround the present one on a stack.
//!
//! What an instantiation costs follows from what its component instantiates in turn, so each component's cost is known
//! when it ends, and is added (saturating) wherever it is instantiated. A component or module that comes from somewhere
//! else than a definition has no known cost; none that a toolchain makes does so, and it is refused by name.

use std::ops::AddAssign;

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, Instance, Parser, Payload, SectionLimited,
};

use super::body;
use super::bounds::{self, within};
use crate::error::Error;
use crate::load::import_allowed;

pub(super) fn malformed(error: BinaryReaderError) -> Error {
    Error::Malformed(error.to_string())
}

/// Refuses what is over a limit. Takes time and memory in proportion to the bytes.
pub(crate) fn scan(wasm: &[u8]) -> Result<(), Error> {
    let mut scan = Scan::default();
    for payload in Parser::new(0).parse_all(wasm) {
        scan.payload(payload.map_err(malformed)?)?;
    }
    Ok(())
}

/// What an instance brings with it, itself included.
#[derive(Clone, Copy, Default)]
struct Cost {
    instances: u64,
    core_instances: u64,
    memories: u64,
    tables: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.instances = self.instances.saturating_add(other.instances);
        self.core_instances = self.core_instances.saturating_add(other.core_instances);
        self.memories = self.memories.saturating_add(other.memories);
        self.tables = self.tables.saturating_add(other.tables);
    }
}

/// A module or component that is being read.
#[derive(Default)]
struct Frame {
    is_module: bool,
    /// What one instance of it costs.
    cost: Cost,
    /// Cost of each module of its index space.
    modules: Vec<Cost>,
    /// Cost of each component of its index space.
    components: Vec<Cost>,
}

#[derive(Default)]
struct Scan {
    frames: Vec<Frame>,
    modules: u64,
    functions: u64,
    types: u64,
    imports: u64,
    exports: u64,
    segments: u64,
    globals: u64,
    links: u64,
    custom_bytes: u64,
}

/// Adds and refuses in one step.
fn count(sum: &mut u64, more: u64, what: &'static str, limit: u64) -> Result<(), Error> {
    *sum = sum.saturating_add(more);
    within(what, *sum, limit)
}

fn name(name: &str) -> Result<(), Error> {
    within("bytes in one name", name.len() as u64, bounds::NAME_BYTES)
}

fn foreign(what: &str) -> Error {
    Error::Malformed(format!("a {what} is passed as a value; define it where it is instantiated"))
}

fn each<'a, T: wasmparser::FromReader<'a>>(
    section: SectionLimited<'a, T>,
    mut of: impl FnMut(T) -> Result<(), Error>,
) -> Result<(), Error> {
    section.into_iter().try_for_each(|item| of(item.map_err(malformed)?))
}

impl Scan {
    fn frame(&mut self) -> Result<&mut Frame, Error> {
        self.frames.last_mut().ok_or_else(|| Error::Malformed("a section before the header".into()))
    }

    fn payload(&mut self, payload: Payload<'_>) -> Result<(), Error> {
        match payload {
            Payload::Version { encoding, .. } => self.begin(encoding == Encoding::Module),
            Payload::End(_) => self.end(),
            Payload::TypeSection(section) => self.types(section.count()),
            Payload::CoreTypeSection(section) => self.types(section.count()),
            Payload::ComponentTypeSection(section) => self.types(section.count()),
            Payload::ImportSection(section) => {
                count(&mut self.imports, section.count().into(), "imports", bounds::IMPORTS)?;
                for import in section.into_imports() {
                    let import = import.map_err(malformed)?;
                    name(import.module)?;
                    name(import.name)?;
                }
                Ok(())
            }
            Payload::ComponentImportSection(section) => {
                count(&mut self.imports, section.count().into(), "imports", bounds::IMPORTS)?;
                let outermost = self.frames.len() == 1;
                each(section, |import| {
                    name(import.name.name)?;
                    if outermost {
                        import_allowed(import.name.name)?;
                    }
                    match import.ty {
                        ComponentTypeRef::Module(_) => Err(foreign("module")),
                        ComponentTypeRef::Component(_) => Err(foreign("component")),
                        _ => Ok(()),
                    }
                })
            }
            Payload::ExportSection(section) => {
                count(&mut self.exports, section.count().into(), "exports", bounds::EXPORTS)?;
                each(section, |export| name(export.name))
            }
            Payload::ComponentExportSection(section) => {
                count(&mut self.exports, section.count().into(), "exports", bounds::EXPORTS)?;
                each(section, |export| {
                    name(export.name.name)?;
                    match export.kind {
                        ComponentExternalKind::Module => Err(foreign("module")),
                        ComponentExternalKind::Component => Err(foreign("component")),
                        _ => Ok(()),
                    }
                })
            }
            Payload::FunctionSection(section) => {
                count(&mut self.functions, section.count().into(), "functions", bounds::FUNCTIONS)
            }
            Payload::TableSection(section) => {
                self.frame()?.cost.tables += u64::from(section.count());
                within("tables", section.count().into(), bounds::TABLES)?;
                each(section, |table| within("elements in one table", table.ty.initial, bounds::ELEMENTS))
            }
            Payload::MemorySection(section) => {
                self.frame()?.cost.memories += u64::from(section.count());
                within("memories", section.count().into(), bounds::MEMORIES)?;
                each(section, |memory| within("pages in one memory", memory.initial, bounds::PAGES))
            }
            Payload::GlobalSection(section) => {
                count(&mut self.globals, section.count().into(), "globals", bounds::GLOBALS)
            }
            Payload::ElementSection(section) => self.segments(section.count()),
            Payload::DataSection(section) => self.segments(section.count()),
            Payload::CodeSectionEntry(function) => body::check(&function),
            Payload::CustomSection(section) => {
                let bytes = section.data().len() as u64;
                count(&mut self.custom_bytes, bytes, "bytes in custom sections", bounds::CUSTOM_BYTES)
            }
            Payload::InstanceSection(section) => self.core_instances(section),
            Payload::ComponentInstanceSection(section) => self.instances(section),
            Payload::ComponentAliasSection(section) => self.aliases(section),
            Payload::ComponentCanonicalSection(section) => self.links(section.count()),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, is_module: bool) -> Result<(), Error> {
        let own = match is_module {
            true => Cost { core_instances: 1, ..Cost::default() },
            false => Cost { instances: 1, ..Cost::default() },
        };
        if is_module {
            count(&mut self.modules, 1, "modules", bounds::MODULES)?;
        }
        self.frames.push(Frame { is_module, cost: own, ..Frame::default() });
        within("components within each other", self.frames.len() as u64, bounds::DEPTH)
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(ended) = self.frames.pop() else { return Ok(()) };
        match self.frames.last_mut() {
            Some(outer) if ended.is_module => outer.modules.push(ended.cost),
            Some(outer) => outer.components.push(ended.cost),
            None => {}
        }
        // Nothing is gained by refusing only what is reached from the outermost: none of these can be instantiated.
        within("instances (nested ones unfolded)", ended.cost.instances, bounds::INSTANCES)?;
        within("core instances (nested ones unfolded)", ended.cost.core_instances, bounds::CORE_INSTANCES)?;
        within("memories (nested instances unfolded)", ended.cost.memories, bounds::MEMORIES)?;
        within("tables (nested instances unfolded)", ended.cost.tables, bounds::TABLES)
    }

    fn types(&mut self, more: u32) -> Result<(), Error> {
        count(&mut self.types, more.into(), "types", bounds::TYPES)
    }

    fn segments(&mut self, more: u32) -> Result<(), Error> {
        count(&mut self.segments, more.into(), "data and element segments", bounds::SEGMENTS)
    }

    fn links(&mut self, more: u32) -> Result<(), Error> {
        count(&mut self.links, more.into(), "aliases and links", bounds::LINKS)
    }

    fn core_instances(&mut self, section: SectionLimited<'_, Instance<'_>>) -> Result<(), Error> {
        self.links(section.count())?;
        each(section, |instance| match instance {
            Instance::Instantiate { module_index, args } => {
                self.links(args.len() as u32)?;
                let frame = self.frame()?;
                let unknown = || Error::Malformed(format!("unknown module {module_index}"));
                let cost = *frame.modules.get(module_index as usize).ok_or_else(unknown)?;
                frame.cost += cost;
                Ok(())
            }
            Instance::FromExports(exports) => self.links(exports.len() as u32),
        })
    }

    fn instances(&mut self, section: SectionLimited<'_, ComponentInstance<'_>>) -> Result<(), Error> {
        self.links(section.count())?;
        each(section, |instance| match instance {
            ComponentInstance::Instantiate { component_index, args } => {
                self.links(args.len() as u32)?;
                let frame = self.frame()?;
                let unknown = || Error::Malformed(format!("unknown component {component_index}"));
                let cost = *frame.components.get(component_index as usize).ok_or_else(unknown)?;
                frame.cost += cost;
                Ok(())
            }
            ComponentInstance::FromExports(exports) => self.links(exports.len() as u32),
        })
    }

    fn aliases(&mut self, section: SectionLimited<'_, ComponentAlias<'_>>) -> Result<(), Error> {
        self.links(section.count())?;
        each(section, |alias| match alias {
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => {
                Err(foreign("module"))
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                Err(foreign("component"))
            }
            ComponentAlias::Outer { kind, count, index } => self.outer_alias(kind, count, index),
            _ => Ok(()),
        })
    }

    /// What is defined further out is taken into this component's index space.
    fn outer_alias(&mut self, kind: ComponentOuterAliasKind, count: u32, index: u32) -> Result<(), Error> {
        let unknown = || Error::Malformed(format!("alias of unknown {index}, {count} components out"));
        let at = (self.frames.len() - 1).checked_sub(count as usize).ok_or_else(unknown)?;
        match kind {
            ComponentOuterAliasKind::CoreModule => {
                let cost = *self.frames[at].modules.get(index as usize).ok_or_else(unknown)?;
                self.frame()?.modules.push(cost);
            }
            ComponentOuterAliasKind::Component => {
                let cost = *self.frames[at].components.get(index as usize).ok_or_else(unknown)?;
                self.frame()?.components.push(cost);
            }
            ComponentOuterAliasKind::CoreType | ComponentOuterAliasKind::Type => {}
        }
        Ok(())
    }
}
