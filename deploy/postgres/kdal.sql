-- Run once, on an empty volume: kdal's own database beside Label Studio's.
CREATE DATABASE kdal;
