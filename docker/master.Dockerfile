# The registry of datanodes and the maintenance jobs.
FROM frostbyte-base
ENTRYPOINT ["frostbyte", "master"]
CMD ["--config", "/etc/frostbyte/config.json"]
