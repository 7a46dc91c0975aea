"""What operators see: the live page, its server, who may change what, and what people said of the frames shown."""
