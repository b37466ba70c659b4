#!/usr/bin/perl
# What sd acknowledged is there after kill -9 at any moment, whole batches only; a store it cannot trust stops it.
use strict;
use warnings;
use HyperTest;
use HyperSd;
use Test::More;
use Time::HiRes qw(time);

my $sd = sd_new();
my $file = write_file(tmp() . '/batch.json',
	json_text({ records => [ map { { name => "op-$_", section => 'groups', data => ["g-$_"] } } 1 .. 3 ] }));

# a writer that notes each acknowledged tip, killed with its directory
my ($acknowledged, $rounds) = (0, 0);
my %tips;
for my $round (1 .. 8) {
	my $daemon = $sd->start_sd;
	my $records = $sd->records;
	my %served = map { ($_->{hash} => 1) } @{ $records // [] };
	is(scalar(grep { !$served{$_} } keys %tips), 0, "round $round: all $acknowledged acknowledged batches are there");
	is(@$records % 3, 0, 'in whole batches');

	my $notes = tmp() . "/notes.$round";
	my $settings = $sd->hyper_settings('hd-1');
	my $writer = HyperTest::start("writer$round", [ 'sh', '-c',
		'while out=$("$0" sd submit-records "$1") ; do echo "$out" >>"$2"; done', program('hyper'), $file, $notes ],
		env => { HYPER_SETTINGS => $settings }, ready => 0);
	# after at least one acknowledgement, at a moment that differs from round to round
	ok(wait_until(sub { my @n = split /\n/, read_file($notes); @n >= 1 + $round % 3 }), 'the writer gets on');
	my $until = time + $round * 0.011;
	wait_until { time > $until } 1;
	$daemon->signal('KILL');
	is($daemon->wait_exit, 128 + 9, 'killed');
	$writer->wait_exit(30);
	for (split /\n/, read_file($notes)) {
		next if !/tip ([0-9a-f]{64})/;
		$tips{$1} = 1;
		$acknowledged++;
	}
	$rounds++;
}
ok($acknowledged >= $rounds, "$acknowledged batches were acknowledged in $rounds rounds");

# a stranger's change to the store is noticed before anything is served
my $daemon = $sd->start_sd;
my $second = HyperTest::start('second', [ program('sd'), 'run' ], env => { SD_SETTINGS => "$sd->{dir}/settings" }, ready => 0);
is($second->wait_exit, 1, 'a second sd on the same store ends');
like($second->log_text, qr/another process uses it/, 'and says why');
is($daemon->stop, 0);
SKIP: {
	skip 'sqlite3 is not installed', 4 if system("command -v sqlite3 >/dev/null") != 0;
	is(system('sqlite3', $sd->{store}, q(UPDATE record SET text = replace(text, '"g-2"', '"g-9"') WHERE seq = 5)), 0);
	my $broken = $sd->start_sd(ready => 0);
	is($broken->wait_exit, 1, 'a changed record stops the start');
	like($broken->log_text, qr/record 4 of the store does not verify: wrong hash/, 'and is named');
	unlike($broken->log_text, qr/ ready /, 'nothing was served');
}
write_file("$sd->{store}", 'this is no database, and long enough to be looked at as one' x 20);
my $other = $sd->start_sd(ready => 0);
is($other->wait_exit, 1, 'a file that is no database stops the start');
like($other->log_text, qr/is no database/);
hyper_done();
