"""Where frames come from: cameras, video files, folders of pictures, and a synthetic scene."""
