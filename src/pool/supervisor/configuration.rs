//! The configuration that a pool serves with, and the one that a reload tries.

use diagnostics::message::LogMessage;
use wire::launch::{Preload, Service};

use crate::{
    pool::{
        config_reader::{ConfigReader, NextConfig},
        supervisor::{config::ReloadableConfig, resources::PoolResources},
        template::TemplateLaunch,
    },
    request::Request,
};

/// The service of a pool's workers, which a reload may change.
pub(super) struct Configuration {
    app: String,
    service: Service,
    /// `None` if the configuration never changes.
    reader: Option<ConfigReader>,
    next: Option<NextConfig>,
}

impl Configuration {
    /// The configuration of a pool that is starting.
    pub(super) fn new(config: &ReloadableConfig, reader: Option<ConfigReader>) -> Self {
        let app = config.settings.app.to_string();
        Self { app, service: config.service.clone(), reader, next: None }
    }

    /// The application that serves.
    pub(super) fn app(&self) -> &str {
        &self.app
    }

    /// The service of the workers that serve.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Does the pool have `--clear-env`?
    pub(super) fn clears_environment(&self) -> bool {
        self.reader.as_ref().is_some_and(ConfigReader::clears_environment)
    }

    /// The launch of a template process with `preload`, for the next configuration if there is one.
    pub(super) fn launch<'a>(
        &'a self,
        resources: &'a PoolResources,
        preload: Preload,
    ) -> TemplateLaunch<'a> {
        let next = self.next.as_ref();
        let service = next.map_or(&self.service, |next| &next.config.service);
        resources.launch(service, next.and_then(|next| next.logs.as_ref()), preload)
    }

    /// Reads the configuration that the next load tries, for a pool with at least `min` workers.
    /// Returns `None` if it never changes.
    ///
    /// # Errors
    /// The log message about the configuration.
    pub(super) fn read_next(
        &mut self,
        min: usize,
        resources: &PoolResources,
    ) -> Result<Option<&ReloadableConfig>, LogMessage> {
        let Some(reader) = &self.reader else { return Ok(None) };
        let next = reader.read(&self.service, min, &resources.logs)?;
        Ok(Some(&self.next.insert(next).config))
    }

    /// The reload has failed: the old configuration stays.
    pub(super) fn discard_next(&mut self) {
        self.next = None;
    }

    /// Adopts the configuration of the reload, with its logs. Returns the configuration, and the
    /// log message about options that keep their old values.
    pub(super) fn adopt_next(
        &mut self,
        resources: &mut PoolResources,
    ) -> Option<(ReloadableConfig, Option<LogMessage>)> {
        let (reader, next) = (self.reader.as_mut()?, self.next.take()?);
        reader.adopt(&next);
        let app = &next.config.settings.app;
        (self.app, self.service) = (app.to_string(), next.config.service.clone());
        resources.request = Request::of_pool(app);
        if let Some(logs) = next.logs {
            resources.logs = logs;
        }
        Some((next.config, next.unchanged))
    }
}
