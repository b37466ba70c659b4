#!/usr/bin/perl
# A full disk refuses the submit and harms nothing; a write that fails otherwise ends sd after it has said so.
use strict;
use warnings;
use HyperTest;
use HyperSd;
use Test::More;

my $big = 'x' x 3000;
my $batch = sub {
	my ($n) = @_;
	return write_file(tmp() . "/batch$n.json", json_text({ records =>
		[ map { { name => "op-$_", section => 'channels', data => [ { type => $big . $n } ] } } 1 .. 20 ] }));
};
my $submit_until_refused = sub {
	my ($sd) = @_;
	my $stored = 0;
	for my $n (1 .. 60) {
		my ($status, $out, $err) = $sd->cli('hd-1', 'submit-records', $batch->($n));
		return ($stored, $err) if $status;
		$stored += 20;
	}
	return ($stored, '');
};

# a write error that is not "no space": nobody knows what is on the disk
my $sd = sd_new(name => '-limited');
my $daemon = $sd->start_sd(wrap => [ 'sh', '-c', 'ulimit -f 1000; exec "$@"', 'sh' ]);
my ($stored, $err) = $submit_until_refused->($sd);
ok($stored > 0, "$stored records fit");
like($err, qr/nothing was stored: records: /, 'the submitter is told');
is($daemon->wait_exit, 1, 'sd ends with an error');
like($daemon->log_text, qr/store_poisoned/, 'and says why');
my $again = $sd->start_sd;
my $records = $sd->records;
ok(@$records == $stored || @$records == $stored + 20, 'started again: every acknowledged record, and no part of a batch');
is(($sd->cli('hd-1', 'submit-records', $batch->(99)))[0], 0, 'and it takes records again');
is($again->stop, 0);

SKIP: {
	skip 'needs root to mount a small tmpfs', 7 if $> != 0;
	my $mount = tmp() . '/full';
	mkdir $mount;
	# a mount namespace of its own: gone with the process
	my $full = sd_new(name => '-full', store => "$mount/sd.sqlite");
	my $d = eval {
		$full->start_sd(wrap => [ 'unshare', '--mount', 'sh', '-c',
			'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"', $mount ]);
	};
	skip 'this machine does not permit a mount', 7 if !$d;
	($stored, $err) = $submit_until_refused->($full);
	ok($stored > 0, "$stored records fit on the disk");
	like($err, qr/full/, 'then it is full, and the submitter is told');
	ok($d->is_running, 'sd goes on');
	is(scalar @{ $full->records }, $stored, 'every acknowledged record is served, none of the refused');
	like(($full->cli('hd-1', 'submit-records', $batch->(99)))[2], qr/full/, 'still full');
	is(scalar @{ $full->records }, $stored, 'reads go on');
	is($d->stop, 0, 'and stops cleanly');
}
hyper_done();
