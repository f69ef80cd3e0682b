# S3 for clients: one listening socket, a worker for each processor.
FROM frostbyte-base
EXPOSE 9000
ENTRYPOINT ["frostbyte", "gateway"]
CMD ["--config", "/etc/frostbyte/config.json"]
